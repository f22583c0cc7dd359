"""A run of collaborative inference: what is trained once, what is asked, and what a sweep has in common."""

from __future__ import annotations

import pytest
import torch

from thornbed.flower_apps.resolving import resolve
from thornbed.flower_apps.schemes.inference import run as module
from thornbed.flower_apps.schemes.inference.run import EXTRACTORS, InferenceRun, states_of
from thornbed.flower_apps.schemes.inference.server import InferenceServer
from thornbed.flower_apps.settings import settings_from
from thornbed.protocol.tensor_files import load_tensors, save_tensors

ALIKE = {"local_epochs": 1.0, "num_clients": 4, "task": "digits(num_train=200, num_test=50)"}


def made(**values: object) -> InferenceRun:
    said = {"strategy": "collaborative_inference(embedding_size=6)", **ALIKE, **values}
    return InferenceRun(resolve(settings_from(said)))


@pytest.fixture
def trained(monkeypatch):
    """What was trained: the settings of each training."""
    module._trained.cache_clear()
    found, train = [], InferenceRun.train_extractors
    monkeypatch.setattr(InferenceRun, "train_extractors", lambda self: found.append(self.settings) or train(self))
    return found


def test_a_sweep_trains_once_for_all_defenses_and_attacks_and_anew_for_what_decides(trained, tmp_path):
    first = made(output=str(tmp_path))
    others = [
        made(defense="copur", attack="feature_flip", rounds=5),
        made(strategy="collaborative_inference(embedding_size=6, bottleneck=3, epochs=2, drop=0.1)", min_replies=4),
    ]
    for other in others:
        assert all(
            torch.equal(one, two)
            for one, two in zip(states_of(first.extractors).values(), states_of(other.extractors).values(), strict=True)
        )
    assert len(trained) == 1
    changes = [
        {"seed": 1}, {"learning_rate": 0.1}, {"batch_size": 7}, {"optimizer": "sgd"}, {"partition": "contiguous"},
        {"local_epochs": 2.0}, {"model": "column_layers(hidden=(3,))"}, {"num_clients": 2},
        {"task": "digits(num_train=100, num_test=50)"}, {"strategy": "collaborative_inference(embedding_size=5)"},
        {"strategy": "collaborative_inference(embedding_size=6, hidden_units=3)"},
        {"strategy": "collaborative_inference(embedding_size=6, validation=0.3)"},
    ]  # fmt: skip
    for number, change in enumerate(changes, 2):
        _ = made(**change).extractors
        assert len(trained) == number, change


def test_processes_share_what_one_of_them_trained_and_a_new_run_takes_over_nothing(trained, tmp_path):
    run = made(engine="simulation", output=str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    stale = {name: torch.zeros_like(tensor) for name, tensor in states_of(run.new_extractors()).items()}
    save_tensors(tmp_path / "run" / EXTRACTORS, stale)  # of a run that was killed before it had records
    server = InferenceServer(run)
    states = states_of(server.networks)
    assert all(bool(tensor.any()) for name, tensor in states.items() if name.endswith("weight"))
    client = made(engine="simulation", output=str(tmp_path / "run"))
    module._trained.cache_clear()  # as it is in another process
    assert all(torch.equal(tensor, states[name]) for name, tensor in states_of(client.extractors).items())
    assert all(
        torch.equal(tensor, states[name]) for name, tensor in load_tensors(tmp_path / "run" / EXTRACTORS)[0].items()
    )
    assert len(trained) == 1


def test_without_a_folder_each_process_trains_and_nothing_is_left_where_it_stands(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = states_of(made(engine="simulation").extractors)
    module._trained.cache_clear()
    other = states_of(made(engine="simulation").extractors)
    assert len(trained) == 2
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert list(tmp_path.iterdir()) == []


def test_the_model_is_public_where_somebody_who_attacks_needs_it(tmp_path):
    told = {"output": str(tmp_path), "malicious_ids": "2,3"}
    assert not made().asked.public
    assert not made(attack="feature_flip", **told).asked.public
    assert made(attack="missing(agents=(2,)) + targeted_pgd(agents=(3,))", **told).asked.public


def test_validation_holds_out_the_last_training_rows():
    asked = made(strategy="collaborative_inference(embedding_size=6, validation=0.25)").asked
    assert (asked.split, asked.train.tolist(), asked.queries.tolist()) == (
        "train",
        list(range(150)),
        list(range(150, 200)),
    )
    run = made()
    assert (run.asked.split, len(run.asked.train), len(run.asked.queries)) == ("test", 200, 50)
    assert torch.equal(run.labels("test", run.asked.queries), run.task.test.y)
