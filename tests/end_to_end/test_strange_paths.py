"""A folder may have any name: with an ideographic space, an umlaut, a zero-width joiner, in any locale."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import read_lines

STRANGE = "研究　用 é\u200dü\u00a0x"
SMALL = ["--task", "digits(num_train=60)", "--model", "cnn(width=2)", "--num-clients", 3, "--partition", "iid"]
SWEEP = 'task = "digits(num_train=60)"\nmodel = "cnn(width=2)"\nnum-clients = 3\nrounds = 1\nseed = [0, 1]\n'
READ = ["--optimizer", "sgd", "--batch-size", 4, "--curious", "agic(steps=2, labels='counts')", "--record", "kept"]


def test_every_command_works_in_a_folder_of_any_name(thornbed, tmp_path, monkeypatch):
    here = tmp_path / STRANGE
    here.mkdir()
    monkeypatch.chdir(here)
    Path("mine.toml").write_text(SWEEP, encoding="utf-8")
    for words in (
        ["run", *SMALL, "--rounds", 1, *READ, "--output", "a"],
        ["run", "--resume", "--rounds", 2, "--output", "a"],
        ["run", *SMALL, "--rounds", 0, "--start-from", "a/model.safetensors", "--output", here / "é"],
        ["run", *SMALL, "--rounds", 1],  # a folder of the command's own choice
        ["invert", "kept", "--with", "agic(steps=2, labels='counts')", "--output", "inverted"],
        ["sweep", "mine.toml"],
        ["report", "runs/sweeps/mine"],
        ["show", "a"],
    ):
        typed = thornbed(*words)
        assert typed.code == 0, (words, typed.err)
    assert json.loads((here / "a" / "summary.json").read_text())["settings"]["output"] == str(here / "a")
    assert (here / "inverted" / "inversions.png").is_file()
    assert (here / "runs" / "sweeps" / "mine" / "report.html").is_file()


@pytest.mark.slow
def test_so_it_does_in_a_simulation_and_on_several_processes(thornbed, tmp_path, monkeypatch):
    here = tmp_path / STRANGE
    here.mkdir()
    monkeypatch.chdir(here)
    Path("mine.toml").write_text(SWEEP, encoding="utf-8")
    typed = thornbed("run", *SMALL, "--rounds", 1, "--engine", "simulation", "--output", "simulated")
    assert typed.code == 0, typed.err
    assert [line["round"] for line in read_lines(here / "simulated")] == [0, 1]
    typed = thornbed("sweep", "mine.toml", "--jobs", 2)
    assert typed.code == 0, typed.err


@pytest.mark.slow
def test_so_it_does_where_the_locale_is_ascii(tmp_path):
    here = tmp_path / STRANGE
    here.mkdir()
    ascii_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for words in (["run", *SMALL, "--rounds", 1, "--output", "é"], ["show", "é"]):
        command = [sys.executable, "-m", "thornbed.experiments.start", *map(str, words)]
        done = subprocess.run(command, capture_output=True, cwd=here, env=os.environ | ascii_locale, timeout=600)
        assert done.returncode == 0, done.stderr.decode()
    assert len(read_lines(here / "é")) == 2


@pytest.mark.parametrize(
    ("typed_path", "below", "sentence"),
    [
        ("a\tb", "", "takes text of one line, without control characters, not 'a\\tb'"),
        ("a\u2028b", "", "takes text of one line, without control characters"),
        ("a\udcff", "", "takes text in UTF-8, not 'a\\udcff'"),
        ("plain", "x\ny", "takes text of one line, without control characters, not '"),
    ],
)
def test_a_control_character_and_what_is_no_text_are_refused_before_a_folder_is_made(
    typed_path, below, sentence, thornbed, tmp_path, monkeypatch
):
    here = tmp_path / below
    here.mkdir(exist_ok=True)
    monkeypatch.chdir(here)
    typed = thornbed("run", *SMALL, "--rounds", 1, "--output", typed_path)
    assert (typed.code, f"--output {sentence}" in typed.err.replace("\n", "")) == (2, True), typed.err
    assert not list(here.iterdir())
