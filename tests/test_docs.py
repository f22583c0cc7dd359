"""What the documentation shows is tried: its code runs, its flags and links exist."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from thornbed.experiments.cli import _run
from thornbed.flower_apps.settings import Settings

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


@pytest.mark.parametrize("page", ["README.md", "docs/extending.md"])
def test_the_defense_that_a_page_adds_passes_the_contract_of_its_kind(page, tmp_path):
    in_a_copy(tmp_path, page, "clipped_mean", "defenses/aggregation", "tests/contracts/test_aggregation_contract.py")


def test_the_attack_that_the_page_adds_passes_the_contract_of_its_kind(tmp_path):
    where = "attacks/update", "tests/contracts/test_update_attack_contract.py"
    in_a_copy(tmp_path, "docs/extending.md", "a_little_is_enough", *where)


def test_the_figure_that_the_page_adds_passes_the_contract_of_its_kind(tmp_path):
    where = "experiments/figures", "tests/contracts/test_figure_contract.py"
    in_a_copy(tmp_path, "docs/extending.md", "accuracy_by_run", *where, least=3)


def in_a_copy(tmp_path, page, name, folder, contract, least=10):
    """Put the page's file into a copy of the house, as its reader would, and run the contract over it."""
    starts = f"def {name}(", f"class {name.title().replace('_', '')}:"
    [block] = [block for block in blocks(ROOT / page, "python") if any(start in block for start in starts)]
    skip = shutil.ignore_patterns("__pycache__")
    for part in (
        "attacks",
        "clients",
        "defenses",
        "experiments",
        "flower_apps",
        "protocol",
        "strategies",
        "tasks",
        "tests",
        "thornbed",
    ):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=skip)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / folder / f"{name}.py").write_text(block)
    words = [sys.executable, "-m", "pytest", contract, "-k", name, "-rs", "-p", "no:cacheprovider"]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= least
    command = [sys.executable, "-m", "thornbed.experiments.cli", "list", "--format", "json"]
    listed = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    [plugin] = [plugin for plugin in json.loads(listed.stdout) if plugin["name"] == name]
    assert plugin["source"]


def test_the_imports_for_other_flower_apps_work():
    from thornbed.defenses.aggregation.krum import krum
    from thornbed.strategies import Curious, FedAvg, InvariantAggregation

    assert Curious(FedAvg(rule=krum), print).inner.rule is krum
    assert InvariantAggregation(tau=0.5).rule.keywords["tau"] == 0.5


def test_the_recorder_that_the_page_adds_records(tmp_path, monkeypatch):
    import torch

    from thornbed.protocol.recordings import load_update
    from thornbed.strategies import FedAvg, Sighting

    monkeypatch.chdir(tmp_path)
    [block] = blocks(ROOT / "docs" / "inversion.md", "python")
    names = {"strategy": FedAvg()}
    exec(compile(block, "inversion.md", "exec"), names)
    models = [{"w": torch.zeros(2)}, {"w": torch.ones(2)}]
    sighting = Sighting(server_round=3, node_id=7, sent=models[0], received=models[1], num_examples=8.0)
    names["strategy"].observer(sighting)
    assert load_update(tmp_path / "recordings" / "3-7.safetensors").received["w"].tolist() == [1.0, 1.0]
