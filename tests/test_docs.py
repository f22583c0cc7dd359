"""What the documentation shows is tried: its code runs, its flags and links exist."""

import ast
import re
from pathlib import Path

import pytest
import torch

from flower_apps.cli import _run
from flower_apps.config import Settings

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_are_python(page):
    for block in blocks(page, "python"):
        ast.parse(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_of_run_are_flags(page):
    flags = {f"--{name.replace('_', '-')}" for name in Settings.model_fields}
    for block in blocks(page, "bash"):
        for command in re.findall(
            r"(?:thornbed|run\.sh) run (.*?)(?:#|\n(?!\s)|$)", block.replace("\\\n", " "), re.DOTALL
        ):
            assert set(re.findall(r"(?<!\S)--[a-z-]+", command)) <= flags, command
    assert _run.__doc__


def test_the_defenses_that_the_pages_add_work():
    updates = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    for page in (ROOT / "README.md", ROOT / "docs" / "extending.md"):
        [block] = [block for block in blocks(page, "python") if "def clipped_mean" in block]
        space: dict = {}
        exec(compile(block, page.name, "exec"), space)
        mean = space["clipped_mean"](updates, torch.tensor([0.5, 0.5]), norm=1.0)
        assert mean.tolist() == pytest.approx([0.45, 0.6])


def test_the_attack_that_the_page_adds_works():
    [block] = [block for block in blocks(ROOT / "docs" / "extending.md", "python") if "def little" in block]
    space: dict = {}
    exec(compile(block, "extending.md", "exec"), space)
    peers = torch.tensor([[1.0, 2.0], [3.0, 2.0]])
    assert space["little"](peers, torch.Generator(), z=2.0).tolist() == [0.0, 2.0]


def test_the_imports_for_other_flower_apps_work():
    from defenses.aggregation.krum import krum
    from strategies import Curious, FedAvg, InvariantAggregation

    assert Curious(FedAvg(rule=krum), print).inner.rule is krum
    assert InvariantAggregation(tau=0.5).rule.keywords["tau"] == 0.5
