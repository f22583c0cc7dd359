"""Runs that begin with the model of a file: where they start, what is recorded of it, and what is no start."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import read_lines

SMALL = ["run", "--task", "digits", "--model", "cnn(width=2)", "--num-clients", 4]


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The folder of a finished run of two rounds, made once for all; the fixture that types is of one test only."""
    from rich.console import Console

    from thornbed.experiments.runs import launch
    from thornbed.flower_apps.settings import settings_from

    folder = tmp_path_factory.mktemp("first") / "run"
    flags = {"task": "digits", "model": "cnn(width=2)", "num_clients": 4, "rounds": 2, "output": str(folder)}
    silent = Console(quiet=True)
    launch.run(launch.prepare(settings_from(flags)), silent, silent)
    return folder


def config(folder):
    return json.loads((folder / "config.json").read_text())


def test_a_run_begins_where_an_earlier_one_ended(first, thornbed, tmp_path, monkeypatch):
    monkeypatch.chdir(first)
    flags = ["--rounds", 1, "--seed", 7, "--strategy", "median", "--start-from", "model.safetensors"]
    typed = thornbed(*SMALL, *flags, "--output", tmp_path / "run")
    assert typed.code == 0, typed.err
    begin, end = read_lines(tmp_path / "run")[0], read_lines(first)[-1]
    assert {name: begin[name] for name in ("accuracy", "loss")} == {name: end[name] for name in ("accuracy", "loss")}
    assert begin["accuracy"] > read_lines(first)[0]["accuracy"]
    written = config(tmp_path / "run")
    assert written["settings"]["start_from"] == str(first / "model.safetensors")
    assert written["start_from_sha256"] == hashlib.sha256((first / "model.safetensors").read_bytes()).hexdigest()
    assert f"--start-from {first / 'model.safetensors'}" in written["command"]
    assert "start_from_sha256" not in config(first)


def test_a_curious_server_reads_a_trained_model(first, thornbed, tmp_path):
    from thornbed.protocol.recordings import load_update, recordings_in

    start = ["--start-from", first / "model.safetensors", "--rounds", 1]
    assert thornbed(*SMALL, *start, "--record", tmp_path / "rec", "--output", tmp_path / "run").code == 0
    [path] = recordings_in(tmp_path / "rec")
    trained = load_file(first / "model.safetensors")
    sent = load_update(path).sent
    assert sent.keys() == trained.keys()
    assert all(torch.equal(tensor, sent[name]) for name, tensor in trained.items())


def test_a_run_that_goes_on_has_no_use_for_the_file(first, thornbed, tmp_path):
    start = tmp_path / "start.safetensors"
    start.write_bytes((first / "model.safetensors").read_bytes())
    assert thornbed(*SMALL, "--start-from", start, "--rounds", 3, "--output", tmp_path / "whole").code == 0
    assert thornbed(*SMALL, "--start-from", start, "--rounds", 1, "--output", tmp_path / "cut").code == 0
    known = config(tmp_path / "cut")["start_from_sha256"]
    start.unlink()
    typed = thornbed("run", "--resume", "--rounds", 3, "--output", tmp_path / "cut")
    assert typed.code == 0, typed.err
    assert config(tmp_path / "cut")["start_from_sha256"] == known
    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(tensor, cut[name]) for name, tensor in whole.items())
    typed = thornbed("run", "--resume", "--rounds", 4, "--start-from", tmp_path / "other", "--output", tmp_path / "cut")
    assert typed.code == 2
    assert "a run goes on with the settings it began with" in typed.sentence


def test_a_start_in_half_precision_is_taken(first, thornbed, tmp_path):
    half = {name: tensor.half() for name, tensor in load_file(first / "model.safetensors").items()}
    save_file(half, tmp_path / "half.safetensors")
    start = ["--start-from", tmp_path / "half.safetensors", "--rounds", 1, "--output", tmp_path / "run"]
    assert thornbed(*SMALL, *start).code == 0
    assert {tensor.dtype for tensor in load_file(tmp_path / "run" / "model.safetensors").values()} == {torch.float32}


def changed(path, change):
    tensors = load_file(path)
    name = sorted(tensors)[0]
    change(tensors, name)
    return tensors, name


def drop(tensors, name):
    del tensors[name]


def add(tensors, name):
    tensors["another.weight"] = torch.zeros(1)


def widen(tensors, name):
    tensors[name] = torch.zeros(3, 5)


def spoil(tensors, name):
    tensors[name].flatten()[0] = torch.nan


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (drop, "does not fit --model cnn(width=2): it lacks {name} (1 such)"),
        (add, "does not fit --model cnn(width=2): it holds another.weight, which the model has not (1 such)"),
        (widen, "does not fit --model cnn(width=2): {name} is (3, 5) instead of {shape}"),
        (spoil, "holds values that are not finite: in {name} (1 such)"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(first, thornbed, tmp_path, change, sentence):
    tensors, name = changed(first / "model.safetensors", change)
    shape = tuple(load_file(first / "model.safetensors")[name].shape)
    save_file(tensors, tmp_path / "other.safetensors")
    typed = thornbed(*SMALL, "--start-from", tmp_path / "other.safetensors", "--output", tmp_path / "run")
    assert typed.code == 2
    assert f"other.safetensors {sentence.format(name=name, shape=shape)}" in typed.sentence
    assert not (tmp_path / "run").exists()


def test_what_holds_no_tensors_is_refused(first, thornbed, tmp_path):
    torch.save(load_file(first / "model.safetensors"), tmp_path / "pickled.pt")
    for name, sentence in (
        ("nowhere", "nowhere is not there; name the model.safetensors of a run"),
        ("pickled.pt", "pickled.pt is no safetensors file, or damaged ("),
        (".", "is no safetensors file, or damaged ("),
    ):
        typed = thornbed(*SMALL, "--start-from", tmp_path / name, "--output", tmp_path / "run")
        assert typed.code == 2
        assert sentence in typed.sentence
        assert not (tmp_path / "run").exists()


def test_cells_of_a_sweep_begin_with_models(first, thornbed, tmp_path, monkeypatch):
    monkeypatch.chdir(first)
    flags = 'task = "digits"\nmodel = "cnn(width=2)"\nnum-clients = 4\nrounds = 1\n'
    (tmp_path / "mine.toml").write_text(flags + 'start-from = ["", "model.safetensors"]\n')
    for _ in range(2):  # the second time finds both cells done
        typed = thornbed("sweep", tmp_path / "mine.toml", "--output", tmp_path / "sweep")
        assert typed.code == 0, typed.err
    assert "All 2 cells are done." in typed.out
    lines = [read_lines(path.parent) for path in (tmp_path / "sweep").glob("cells/*/config.json")]
    assert sorted(line[0]["accuracy"] for line in lines)[-1] == read_lines(first)[-1]["accuracy"]


def test_no_rounds_test_the_model_of_another_run(first, thornbed, tmp_path):
    given = ["--attack", "pixel_trigger", "--start-from", first / "model.safetensors"]
    typed = thornbed(*SMALL, "--rounds", 0, *given, "--output", tmp_path / "tested")
    assert typed.code == 0, typed.err
    [line] = read_lines(tmp_path / "tested")
    known = read_lines(first)[-1]
    assert (line["round"], line["accuracy"], line["loss"]) == (0, known["accuracy"], known["loss"])
    summary = json.loads((tmp_path / "tested" / "summary.json").read_text())
    assert summary["metrics"]["attack_success_rate"] == line["attack_success_rate"]
    same = load_file(tmp_path / "tested" / "model.safetensors")
    assert all(torch.equal(same[name], tensor) for name, tensor in load_file(first / "model.safetensors").items())
    # A second time there is nothing left to do, and the same is told.
    assert thornbed("run", "--resume", "--output", tmp_path / "tested").code == 0


def test_no_rounds_are_refused_without_a_model_and_with_replies_to_read(first, thornbed, tmp_path):
    start = ["--start-from", first / "model.safetensors"]
    for given, sentence in (
        ([], "--rounds 0 trains nothing and tests the model of --start-from; name one"),
        ([*start, "--curious", "agic(labels='counts')"], "--curious reads the replies of rounds, and --rounds 0 has"),
        ([*start, "--record", "rec"], "--record reads the replies of rounds, and --rounds 0 has none"),
        (["--strategy", "split_nn"], "--rounds 0 trains nothing"),
    ):
        typed = thornbed(*SMALL, "--rounds", 0, *given, "--output", tmp_path / "none")
        assert (typed.code, sentence in typed.sentence) == (2, True), typed.err
    assert not (tmp_path / "none").exists()
