"""Runs of models that measure as well as learn: what is measured passes no rule, no attack and no perturbation."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.conftest import read_lines
from thornbed.experiments.runs import launch
from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun
from thornbed.flower_apps.settings import settings_from


def finished(folder, **values):
    """Return the settings of a run that is over, its accuracy and its model."""
    settings = launch.prepare(settings_from({**values, "task": "digits", "output": str(folder)}))
    summary = launch.start(settings, lambda line: None)
    return settings, summary["metrics"]["accuracy"], load_file(folder / "model.safetensors")


def test_sign_votes_leave_running_statistics_as_good_as_those_of_all_the_data(tmp_path):
    """Signs of running statistics cost a third of the accuracy here: 0.53, where all the training data gave 0.84."""
    settings, accuracy, model = finished(
        tmp_path / "run", model="cnn(norm='batch', width=8)", strategy="sign_sgd", num_clients=8,
        partition="dirichlet(alpha=0.3)", rounds=8,
    )  # fmt: skip
    run = HorizontalRun(settings)
    task, network = run.task, run.new_model()
    network.load_state_dict(model)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # a plain mean over what it is shown
    test = task.samples("test")
    with torch.no_grad():
        network.train()(task.samples("train").x)
        right = network.eval()(test.x).argmax(1) == test.y
    assert accuracy > 0.75
    assert accuracy > float(right.float().mean()) - 0.05


class Counting(nn.Module):
    """A layer that counts its training steps in a buffer of floats, under a name that torch's layers do not have."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.steps = self.steps + torch.tensor([1.0, 0.5])
        return x


@pytest.mark.parametrize("strategy", ["fedavg", "sign_sgd", "fltrust", "sparse_fed(top_k=0.01)"])
def test_what_a_model_measures_passes_every_rule_attack_and_perturbation_untouched(strategy, tmp_path, monkeypatch):
    """Each of six clients takes one step a round, so that after three rounds there are three, to the last bit."""
    monkeypatch.setattr("thornbed.tasks.models.cnn.normalisation", lambda channels, norm: Counting())
    _, _, model = finished(
        tmp_path / "run", model="cnn(width=2, norm='frozen')", strategy=strategy, num_clients=6, partition="iid",
        batch_size=4, local_epochs=0.01, rounds=3, defense="local_dp + top_k", num_malicious=2,
        attack="pixel_trigger + mimic(num_kept=5) + adaptive + scaling(factor=10.0)",
    )  # fmt: skip
    counted = [tensor.tolist() for name, tensor in model.items() if name.endswith("steps")]
    assert counted == [[3.0, 1.5]] * len(counted)
    assert counted
    lines = read_lines(tmp_path / "run")
    assert [line["dropped"] for line in lines[1:]] == [[]] * 3
