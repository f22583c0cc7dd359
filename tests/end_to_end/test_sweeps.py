"""Sweeps as a user runs them: finished, killed, interrupted, damaged and broken cells."""

import json
import os
import signal
import subprocess
import time

import psutil
import pytest

from tests.conftest import read_lines, started
from thornbed.flower_apps.records.folder import Folder

FILE = """
task = "digits"
model = "mlp(hidden=(16,))"
num-clients = 6
partition = "iid"
rounds = {rounds}
strategy = ["fedavg", "median"]
attack = ["pixel_trigger(size=2)", "sign_flip"]
"""


@pytest.fixture
def sweep_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.toml"
    path.write_text(FILE.format(rounds=2))
    return path


def cells(output):
    return sorted(path for path in (output / "cells").iterdir() if path.is_dir())


def test_a_sweep_runs_every_cell_once(thornbed, tmp_path, sweep_file):
    output = tmp_path / "runs" / "sweeps" / "mine"
    typed = thornbed("sweep", sweep_file, "--jobs", 2)
    assert typed.code == 0, typed.err
    assert "4 cells, 0 of them done; about" in typed.out
    assert "with 2 jobs" in typed.out
    assert "4/4" in typed.err
    assert len(cells(output)) == 4
    assert {path.name for path in output.glob("results.*")} == {"results.csv", "results.json", "results.tex"}
    times = {path: (path / "summary.json").stat().st_mtime_ns for path in cells(output)}

    typed = thornbed("sweep", sweep_file)  # a second one does nothing
    assert typed.code == 0
    assert "All 4 cells are done." in typed.out
    assert {path: (path / "summary.json").stat().st_mtime_ns for path in cells(output)} == times

    # A cell is the run that its own command makes, to the byte.
    command = json.loads((cells(output)[0] / "config.json").read_text())["settings"]
    words = [
        word
        for name in ("model", "strategy", "attack", "partition", "rounds", "num_clients")
        for word in (f"--{name.replace('_', '-')}", command[name])
    ]
    assert thornbed("run", *words, "--output", tmp_path / "alone").code == 0
    assert (tmp_path / "alone" / "model.safetensors").read_bytes() == (
        cells(output)[0] / "model.safetensors"
    ).read_bytes()

    typed = thornbed("show", output)
    assert typed.code == 0
    assert typed.out.index("fedavg") < typed.out.index("median")
    typed = thornbed("show", cells(output)[0])
    assert "last rounds" in typed.out
    typed = thornbed("report", output)
    assert typed.code == 0
    page = (output / "report.html").read_text()
    assert "Defense against attack" in page
    assert page.count("<details") == 4


def test_seeds_on_the_command_line_replace_those_of_the_file(thornbed, tmp_path, sweep_file):
    sweep_file.write_text('model = "mlp(hidden=(8,))"\nnum-clients = 3\nrounds = 1\nseed = 7\n')
    assert thornbed("sweep", sweep_file, "--seeds", "0, 1", "--output", tmp_path / "out").code == 0
    seeds = {json.loads((cell / "summary.json").read_text())["settings"]["seed"] for cell in cells(tmp_path / "out")}
    assert seeds == {0, 1}
    assert json.loads((tmp_path / "out" / "results.json").read_text())[0]["seeds"] == 2


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT], ids=["-9", "^C"])
def test_what_was_finished_is_kept_when_a_sweep_ends_early(thornbed, tmp_path, sweep_file, sign):
    sweep_file.write_text(FILE.format(rounds=40))
    output = tmp_path / "out"
    words = ["sweep", str(sweep_file), "--output", str(output), "--jobs", "2"]
    process = started(
        "-m", "thornbed.experiments.cli", *words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not list(output.glob("cells/*/summary.json")):
        time.sleep(0.02)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(sign)
    time.sleep(0.1)
    process.send_signal(sign)
    _, error = process.communicate(timeout=120)
    assert process.returncode == (130 if sign == signal.SIGINT else -9)
    if sign == signal.SIGINT:
        assert "Traceback" not in error
        assert "of 4 cells are done" in error
        assert f"go on with: thornbed sweep {sweep_file} --jobs 2 --output {output}" in error  # pressed twice
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]
    done = {path.parent: path.stat().st_mtime_ns for path in output.glob("cells/*/summary.json")}
    assert 1 <= len(done) < 4
    typed = thornbed("sweep", sweep_file, "--output", output)
    assert typed.code == 0, typed.err
    assert f"4 cells, {len(done)} of them done" in typed.out
    assert {path: (path / "summary.json").stat().st_mtime_ns for path in done} == done
    assert all(len(read_lines(cell)) == 41 for cell in cells(output))


def test_a_broken_cell_stops_nobody_and_is_tried_again(thornbed, tmp_path, sweep_file):
    # Two of three clients send infinities: that cell's federation stops, at its first round.
    sweep_file.write_text(
        'model = "mlp(hidden=(8,))"\nnum-clients = 3\nnum-malicious = 2\nrounds = 2\npartition = "iid"\n'
        'attack = ["scaling(factor=1e39)", "sign_flip"]\n'
    )
    for _ in range(2):
        typed = thornbed("sweep", sweep_file, "--output", tmp_path / "out")
        assert typed.code == 1
        assert "scaling(factor=1e39): round 1 has 1 usable replies and needs 2" in typed.sentence
        assert "1 of 2 cells are broken, the others are done" in typed.sentence
        assert "Traceback" not in typed.err
        assert "1 of them done" in typed.out or "0 of them done" in typed.out
    assert sum((cell / "summary.json").exists() for cell in cells(tmp_path / "out")) == 1


def test_a_worker_that_dies_breaks_its_cell_only(thornbed, tmp_path, sweep_file, monkeypatch):
    """What a kernel does that runs out of memory: the process is gone, and the sweep goes on with another."""
    from thornbed.experiments.sweeps import workers

    start = workers.Worker.start
    killed = []

    def start_and_kill(self, settings):
        start(self, settings)
        if not killed:
            killed.append(settings)
            os.kill(self._process.pid, signal.SIGKILL)

    monkeypatch.setattr(workers.Worker, "start", start_and_kill)
    typed = thornbed("sweep", sweep_file, "--output", tmp_path / "out")
    assert typed.code == 1
    assert "its process ended with signal 9 (SIGKILL)" in typed.sentence
    assert sum((cell / "summary.json").exists() for cell in cells(tmp_path / "out")) == 3


def test_damaged_cells_are_set_aside_and_run_anew(thornbed, tmp_path, sweep_file):
    sweep_file.write_text('model = "mlp(hidden=(8,))"\nnum-clients = 3\nrounds = 1\nseed = [0, 1, 2, 3, 4]\n')
    output = tmp_path / "out"
    assert thornbed("sweep", sweep_file, "--output", output).code == 0
    *damaged, whole = cells(output)
    before = [(cell / "model.safetensors").read_bytes() for cell in damaged]
    time_of_whole = (whole / "summary.json").stat().st_mtime_ns
    names = ("config.json", "metrics.jsonl", "summary.json", "summary.json")
    for cell, name in zip(damaged, names):
        (cell / name).write_text("{\njunk")
    (damaged[3] / "config.json").unlink()  # and one without its settings
    typed = thornbed("sweep", sweep_file, "--output", output)
    assert typed.code == 0, typed.err
    assert "5 cells, 1 of them done" in typed.out
    for cell, name, model in zip(damaged, names, before):
        assert f"{name} is damaged" in typed.out or "without its config.json" in typed.out
        assert f"is kept as {cell.name}.damaged-1, and its cell is run anew" in " ".join(typed.out.split())
        assert (cell / "model.safetensors").read_bytes() == model
        assert (cell.with_name(f"{cell.name}.damaged-1") / name).read_text() == "{\njunk"
        assert Folder(cell).summary() is not None
    assert (whole / "summary.json").stat().st_mtime_ns == time_of_whole


def test_a_run_that_is_spelled_anew_is_the_same_cell(thornbed, tmp_path, sweep_file):
    base = 'model = "mlp(hidden=(8,))"\nnum-clients = 4\nrounds = {rounds}\nattack = "sign_flip"\n'
    one = base + 'malicious-ids = "3"\nstrategy = "invariant(tau=0.2, alpha=0.25)"\n'
    other = base + 'num-malicious = 1\nstrategy = "invariant(alpha=0.25, tau=0.2)"\n'
    sweep_file.write_text(one.format(rounds=2))
    assert thornbed("sweep", sweep_file, "--output", tmp_path / "out").code == 0
    sweep_file.write_text(other.format(rounds=2))
    assert "All 1 cells are done." in thornbed("sweep", sweep_file, "--output", tmp_path / "out").out
    [cell] = cells(tmp_path / "out")
    (cell / "summary.json").unlink()  # what a kill before the end leaves: it goes on as it was begun
    typed = thornbed("sweep", sweep_file, "--output", tmp_path / "out")
    assert typed.code == 0, typed.err
    assert (cell / "summary.json").exists()
    assert cells(tmp_path / "out") == [cell]


def test_a_preset_runs_its_table(thornbed, tmp_path, monkeypatch):
    from thornbed.experiments.sweeps import presets

    (tmp_path / "presets" / "paper").mkdir(parents=True)
    (tmp_path / "presets" / "paper" / "table1.toml").write_text(
        'model = "mlp(hidden=(8,))"\nnum-clients = 3\nstrategy = ["fedavg", "median"]\n'
        '[about]\ntitle = "T"\nsource = "S"\ndata = "none"\nminutes = {cpu = 1}\n'
        "[scale.cpu]\nrounds = 1\nseed = [0, 1]\n"
        '[[published]]\nwhere = {strategy = "median"}\nmetric = "accuracy"\nvalue = 0.9\nsource = "Table 1"\n'
    )
    monkeypatch.setattr(presets, "FOLDER", tmp_path / "presets")
    typed = thornbed("reproduce", "paper/table1", "--output", tmp_path / "out")
    assert typed.code == 0, typed.err
    [row] = json.loads((tmp_path / "out" / "published.json").read_text())
    assert row["paper"] == 0.9
    assert row["seeds"] == 2
    assert row["difference"] == pytest.approx(row["ours"] - 0.9)
    assert row["source"] == "Table 1"
    assert "0.900" in typed.out
    assert "paper/table1" in thornbed("reproduce", "--list").out
    # Without numbers of a paper no table of them is spoken of.
    path = tmp_path / "presets" / "paper" / "table1.toml"
    path.write_text(path.read_text().partition("[[published]]")[0])
    typed = thornbed("reproduce", "paper/table1", "--output", tmp_path / "out")
    assert "There are no published numbers" in typed.out
    assert "published.csv" not in typed.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sweep"], "Missing argument 'FILE'"),
        (["sweep", "none.toml"], "none.toml cannot be read"),
        (["sweep", "mine.toml", "--jobs", "0"], "0 is not in the range x>=1"),
        (
            ["sweep", "mine.toml", "--seeds", "a"],
            "--seeds takes whole numbers joined by commas",
        ),
        (["reproduce"], "reproduce takes PAPER/TABLE"),
        (["reproduce", "paper/none"], "there is nothing to reproduce called paper/none"),
        (["reproduce", "digits/rules_by_attacks", "--scale", "huge"], "'huge' is not one of 'cpu', 'paper'"),
        (["show", "none"], "none is no folder"),
        (["show", "."], ". holds no run"),
        (["report", "none"], "none is no folder"),
        (["sweep", "mine.toml", "--output", "mine.toml"], "mine.toml is a file; name a folder"),
    ],
)
def test_bad_input_gets_one_sentence_and_code_2(thornbed, tmp_path, sweep_file, words, sentence):
    typed = thornbed(*words)
    assert typed.code == 2
    assert sentence in typed.sentence
    assert typed.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


def test_a_busy_folder_is_left_as_it_is(thornbed, tmp_path, sweep_file, monkeypatch):
    from thornbed.flower_apps.records.folder import alone

    monkeypatch.setattr("thornbed.flower_apps.records.folder.LOCK_SECONDS", 0.1)
    with alone(tmp_path / "out"):
        typed = thornbed("sweep", sweep_file, "--output", tmp_path / "out")
    assert typed.code == 2
    assert "is being written by another process" in typed.sentence
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


def test_a_cell_that_another_process_writes_is_not_set_aside(thornbed, tmp_path, monkeypatch):
    from thornbed.flower_apps.records.folder import alone

    monkeypatch.setattr("thornbed.flower_apps.records.folder.LOCK_SECONDS", 0.1)
    file = tmp_path / "mine.toml"
    file.write_text('model = "mlp(hidden=(8,))"\nnum-clients = 3\nrounds = 1\n')
    assert thornbed("sweep", file, "--output", tmp_path / "out").code == 0
    (cell,) = cells(tmp_path / "out")
    with alone(cell):
        typed = thornbed("sweep", file, "--output", tmp_path / "out")
    assert typed.code == 2
    assert f"{cell} is being written by another process" in typed.sentence
    assert cells(tmp_path / "out") == [cell]


def test_a_cell_that_cannot_run_is_refused_before_the_first_one_starts(thornbed, tmp_path, sweep_file):
    sweep_file.write_text('rounds = 1\nattack = ["pixel_trigger", "pixel_trigger(size=99)"]\n')
    typed = thornbed("sweep", sweep_file, "--output", tmp_path / "out")
    assert typed.code == 2
    assert "the cell (pixel_trigger(size=99)): " in typed.sentence
    assert not (tmp_path / "out" / "cells").exists()
