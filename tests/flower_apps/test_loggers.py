"""Loggers repeat the rounds elsewhere, offline; what is not installed is named."""

import sys
import time

import pytest

from tests.conftest import read_lines

RUN = [
    "run",
    "--task",
    "digits",
    "--model",
    "mlp(hidden=(8,))",
    "--num-clients",
    3,
    "--rounds",
    2,
    "--partition",
    "iid",
]


def test_tensorboard_has_the_figures_of_the_records(thornbed, tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    typed = thornbed(*RUN, "--strategy", "median", "--logger", "tensorboard", "--output", tmp_path / "run")
    assert typed.code == 0, typed.err
    events = event_accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("accuracy")]
    assert shown == [(line["round"], pytest.approx(line["accuracy"])) for line in read_lines(tmp_path / "run")]
    assert events.Scalars("defense/trimmed_per_tail")[0].value == 1


def test_weights_and_biases_works_without_a_network(thornbed, tmp_path):
    pytest.importorskip("wandb")
    typed = thornbed(*RUN, "--logger", "wandb(project='mine')", "--output", tmp_path / "run")
    assert typed.code == 0, typed.err
    [stored] = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    # The process of theirs that writes it outlives the end of a run, and is waited for when Python ends.
    end = time.monotonic() + 60
    while b"accuracy" not in (kept := stored.read_bytes()) and time.monotonic() < end:
        time.sleep(0.05)
    assert b"mine" in kept
    assert b"accuracy" in kept


def test_loggers_change_nothing(thornbed, tmp_path):
    pytest.importorskip("tensorboard")
    for name, words in (("with", ["--logger", "tensorboard"]), ("without", [])):
        assert thornbed(*RUN, *words, "--output", tmp_path / name).code == 0
    one, other = (tmp_path / name / "model.safetensors" for name in ("with", "without"))
    assert one.read_bytes() == other.read_bytes()


def test_a_package_that_is_missing_is_named(thornbed, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("thornbed.flower_apps.loggers.importlib.util.find_spec", lambda name: None)
    typed = thornbed(*RUN, "--logger", "wandb", "--output", tmp_path / "run")
    assert typed.code == 2
    assert "--logger wandb needs the package wandb: pip install 'thornbed[wandb]'" in typed.sentence
    assert not (tmp_path / "run").exists()


def test_a_logger_that_is_not_there_is_refused(thornbed, tmp_path):
    typed = thornbed(*RUN, "--logger", "carrier_pigeon", "--output", tmp_path / "run")
    assert typed.code == 2
    assert "there is no logger called carrier_pigeon; there are: tensorboard, wandb" in typed.sentence
