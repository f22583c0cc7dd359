"""A process that dies while it trains: whose turn it was is said, in one sentence, and the run goes on from there."""

import signal
import subprocess
import sys

import pytest

from tests.conftest import read_lines, typed_in
from thornbed.flower_apps.engines.last_words import NOTE, Note, about, read_note

# Its process crashes at the second update that is asked of it, once; the check before a run asks for shorter ones.
CRASHING = """
import os
import signal
from pathlib import Path

import torch
from torch import Tensor

from thornbed.attacks import Knowledge

NEEDS = frozenset({Knowledge.OWN_DATA})


def crashing(peers: Tensor, generator: torch.Generator) -> Tensor:
    calls = Path(os.environ["THORNBED_TEST_CALLS"])
    if peers.shape[1] > 1000:
        with calls.open("ab") as stream:
            stream.write(b".")
        if calls.stat().st_size == 2:
            os.kill(os.getpid(), signal.SIGSEGV)
    return peers[0].clone()
"""
WORDS = ["--model", "mlp(hidden=(32,))", "--num-clients", 6, "--rounds", 3, "--partition", "iid"]
WORDS += ["--attack", "crashing", "--num-malicious", 1]
TO_TRY = "what was finished is kept; go on with --resume"


@pytest.fixture
def crash_house(house, tmp_path, monkeypatch):
    (house / "attacks" / "update" / "crashing.py").write_text(CRASHING)
    monkeypatch.setenv("THORNBED_TEST_CALLS", str(tmp_path / "calls"))
    return house


def model_of(folder):
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_run_that_dies_says_whom_it_trained_and_goes_on(crash_house, tmp_path):
    output = tmp_path / "run"
    typed = typed_in(crash_house, "run", *WORDS, "--output", output)
    assert typed.code == -signal.SIGSEGV
    said = (
        f"thornbed: the process of the run in {output} died while it trained client 5 in round 2: native code crashed"
    )
    assert said in typed.sentence
    assert TO_TRY in typed.sentence
    assert "Traceback" not in typed.err
    assert len(read_lines(output)) == 2  # the start, and round 1
    typed = typed_in(crash_house, "run", "--resume", "--output", output)
    assert typed.code == 0, typed.err
    assert not (output / NOTE).exists()
    assert typed_in(crash_house, "run", *WORDS, "--output", tmp_path / "whole").code == 0
    assert model_of(output) == model_of(tmp_path / "whole")


@pytest.mark.slow
def test_a_simulation_in_which_a_client_dies_says_which_and_goes_on(crash_house, tmp_path):
    output = tmp_path / "run"
    typed = typed_in(crash_house, "run", *WORDS, "--engine", "simulation", "--output", output)
    assert typed.code == 1, typed.err
    assert "died: native code crashed" in typed.sentence
    assert "5 died" in typed.sentence
    assert TO_TRY in typed.sentence
    assert "Traceback" not in typed.err
    assert len(read_lines(output)) == 2
    typed = typed_in(crash_house, "run", "--resume", "--engine", "inline", "--output", output)
    assert typed.code == 0, typed.err
    assert [line.get("dropped") for line in read_lines(output)] == [None, [], [], []]


@pytest.mark.slow
def test_a_cell_that_dies_says_whom_it_trained(crash_house, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        'model = "mlp(hidden=(32,))"\nnum-clients = 6\nnum-malicious = 1\nrounds = 3\npartition = "iid"\n'
        'attack = "crashing"\n'
    )
    typed = typed_in(crash_house, "sweep", file, "--output", tmp_path / "out")
    assert typed.code == 1
    assert "its process ended with signal 11 (SIGSEGV) while it trained client 5 in round 2" in typed.sentence
    assert "Traceback" not in typed.err


def test_a_note_outlives_its_process(tmp_path):
    code = (
        "import os, pathlib, signal; from thornbed.flower_apps.engines.last_words import Note\n"
        f"note = Note(pathlib.Path({str(tmp_path)!r})); note.write('a longer text'); note.write('short')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert read_note(tmp_path) == "short"
    Note(tmp_path).end()
    assert not list(tmp_path.iterdir())
    assert read_note(tmp_path) == ""


@pytest.mark.parametrize(
    ("action", "group", "said"),
    [
        ("train", "2", "while it trained client 3 in round 2"),
        ("train.split", "4.17", "while it trained client 3 in round 4"),
        ("query.identify", "identify", "while it answered query.identify as client 3"),
    ],
)
def test_what_a_note_says(action, group, said):
    assert about(3, action, group) == said
