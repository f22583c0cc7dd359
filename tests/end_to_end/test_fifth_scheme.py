"""A scheme of learning is added by new files alone: the page's Ditto, in a copy of the house."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import copy_of_the_house, read_lines, typed_in

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extending.md"
STRATEGY = 'ditto(pull=0.1, robust="krum(num_byzantine=2)")'
WORDS = ["run", "--task", "digits", "--num-clients", 8, "--partition", "dirichlet(alpha=0.3)", "--strategy", STRATEGY]
BACKDOOR = ["--attack", "pixel_trigger", "--num-malicious", 2]


@pytest.fixture(scope="module")
def with_ditto(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the house with the page's files in it, of which none was there before."""
    house, page = copy_of_the_house(tmp_path_factory.mktemp("ditto") / "house"), PAGE.read_text(encoding="utf-8")
    files = re.findall(r"`([\w/]*ditto[\w/]*\.py)`:\n\n```python\n(.*?)```", page, re.DOTALL)
    assert {name for name, _ in files} == {
        "strategies/ditto.py",
        "flower_apps/schemes/ditto/__init__.py",
        "flower_apps/schemes/ditto/metrics.py",
        "flower_apps/schemes/ditto/scheme.py",
    }
    assert sum(len(text.splitlines()) for _, text in files) < 120
    for name, text in files:
        assert not (house / name).exists()
        (house / name).parent.mkdir(exist_ok=True)
        (house / name).write_text(text, encoding="utf-8")
    return house


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Return the server's model and every client's own, after the last round and the one before."""
    return {path.name: path.read_bytes() for path in [folder / "model.safetensors", *(folder / "clients").iterdir()]}


def told(folder: Path) -> list[dict[str, object]]:
    """Return the rounds, without times."""
    return [{key: value for key, value in line.items() if "seconds" not in key} for line in read_lines(folder)]


def test_a_new_scheme_runs_with_a_backdoor_and_krum_and_goes_on_as_if_it_had_not_ended(with_ditto, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for words in (
        [*WORDS, *BACKDOOR, "--rounds", 4, "--output", whole],
        [*WORDS, *BACKDOOR, "--rounds", 2, "--output", parts],
        ["run", "--resume", "--rounds", 4, "--output", parts],
    ):
        typed = typed_in(with_ditto, *words)
        assert typed.code == 0, typed.err
    assert len(bytes_of(whole)) == 1 + 2 * 8
    assert bytes_of(parts) == bytes_of(whole)
    assert told(parts) == told(whole)
    last = read_lines(whole)[-1]
    assert last["personal_accuracy"] > last["accuracy"] + 0.1  # krum takes one client's model, and clients differ
    assert last["defense"]["selected"] not in (6, 7)  # the attackers
    (parts / "clients" / "client-3-round-4.safetensors").unlink()
    typed = typed_in(with_ditto, "run", "--resume", "--rounds", 6, "--output", parts)
    assert typed.code == 2
    assert "what client 3 kept after round 4 is not in" in typed.err
    typed = typed_in(with_ditto, "show", parts)
    assert typed.code == 0
    assert "accuracy of personal models" in typed.out


@pytest.mark.parametrize(
    ("strategy", "sentence"),
    [
        ("ditto(pull=-1.0)", "ditto needs a finite pull >= 0: pull = -1.0"),
        ("ditto(robust='mocha')", "robust names an aggregation rule, and that is a strategy of its own"),
        ("ditto(robust='krm')", "there is no strategy called krm; did you mean krum?"),
        ("ditto(robust='krum(num_byzantine=4)')", "krum"),
    ],
)
def test_what_cannot_be_is_one_sentence(with_ditto, tmp_path, strategy, sentence):
    typed = typed_in(with_ditto, *WORDS[:-1], strategy, "--output", tmp_path / "run")
    assert typed.code == 2
    assert sentence in typed.err
    assert len(typed.err.strip().splitlines()) <= 2
    assert not (tmp_path / "run").exists()


def test_a_new_scheme_passes_the_contracts_of_its_kinds(with_ditto):
    contracts = [f"tests/contracts/test_{kind}_contract.py" for kind in ("scheme", "strategy")]
    words = [sys.executable, "-m", "pytest", *contracts, "-k", "ditto", "-p", "no:cacheprovider"]
    env = {**os.environ, "PYTHONPATH": str(with_ditto)}
    done = subprocess.run(words, cwd=with_ditto, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 20


@pytest.mark.slow
def test_a_new_scheme_goes_on_in_flowers_engine_from_what_its_clients_kept_inline(with_ditto, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for words in (
        [*WORDS, *BACKDOOR, "--rounds", 2, "--output", whole],
        [*WORDS, *BACKDOOR, "--rounds", 1, "--output", parts],
        ["run", "--resume", "--rounds", 2, "--engine", "simulation", "--output", parts],
    ):
        typed = typed_in(with_ditto, *words)
        assert typed.code == 0, typed.err
    assert bytes_of(parts) == bytes_of(whole)
