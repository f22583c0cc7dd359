"""What an observation refuses, with the numbers, and the gradient that a model update stands for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from thornbed.attacks.inversion import Observation, gradient_of_update

MODEL = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
FIELDS = {
    "model": MODEL,
    "gradient": {"1.weight": torch.zeros(3, 4), "1.bias": torch.zeros(3)},
    "num_samples": 2,
    "sample_shape": (1, 2, 2),
    "num_classes": 3,
}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"sample_shape": (4,)}, r"read images of shape \(C, H, W\): one sample of this task has shape \(4,\)"),
        ({"num_samples": 0}, "needs num_samples >= 1: num_samples = 0"),
        ({"local_steps": 0}, "needs local_steps >= 1: local_steps = 0"),
        ({"epoch": 0}, "needs epoch >= 1: epoch = 0"),
        ({"batch_size": 3}, "1 <= batch_size <= num_samples: batch_size = 3, num_samples = 2"),
        ({"batch_size": (1, 2)}, r"batches >= 1 whose sum is num_samples: batch_size = \[1, 2\], num_samples = 2"),
        ({"batch_size": (2, 0)}, r"batches >= 1 whose sum is num_samples: batch_size = \[2, 0\], num_samples = 2"),
        ({"batch_size": ()}, r"whose sum is num_samples: batch_size = \[\], num_samples = 2"),
        ({"learning_rate": 0.0}, "finite learning_rate > 0: learning_rate = 0.0"),
        ({"batch_norm": "eval"}, 'batch_norm "evaluation" or "training", not \'eval\''),
        ({"mean": (0.5,)}, "for each channel, or none: channels = 1, means = 1, deviations = 0"),
        ({"mean": (0.5, 0.5), "std": (1.0, 1.0)}, "channels = 1, means = 2, deviations = 2"),
        ({"mean": (0.5,), "std": (0.0,)}, r"needs deviations above 0: std = \(0.0,\)"),
        ({"labels": torch.tensor([0])}, r"2 samples has as many labels: shape \(1,\)"),
        ({"labels": torch.tensor([0, 3])}, r"labels lie in \[0, 3\): they go from 0 to 3"),
        ({"gradient": {"1.weight": torch.zeros(3, 4)}}, r"does not fit the model: it lacks 1.bias \(1 such\)"),
        ({"gradient": {**FIELDS["gradient"], "2.bias": torch.zeros(3)}}, "it has 2.bias, no parameter of it"),
        ({"gradient": {**FIELDS["gradient"], "1.bias": torch.zeros(4)}}, r"shape \(4,\), the parameter \(3,\)"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(wrong: dict[str, object], sentence: str) -> None:
    Observation(**FIELDS)
    with pytest.raises(ValueError, match=sentence):
        Observation(**{**FIELDS, **wrong})


def test_the_truth_has_no_place_in_an_observation() -> None:
    assert set(Observation.__dataclass_fields__) == {
        "model", "gradient", "num_samples", "sample_shape", "num_classes", "mean", "std", "labels", "batch_norm",
        "learning_rate", "local_steps", "batch_size", "client", "epoch",
    }  # fmt: skip


def test_batches_follow_each_other_and_begin_again() -> None:
    seen = Observation(**{**FIELDS, "num_samples": 5, "batch_size": 2, "local_steps": 4})
    assert [rows.tolist() for rows in seen.batches] == [[0, 1], [2, 3], [4], [0, 1]]
    seen = Observation(**{**FIELDS, "num_samples": 5, "batch_size": (1, 2, 2), "local_steps": 4})
    assert [rows.tolist() for rows in seen.batches] == [[0], [1, 2], [3, 4], [0]]
    seen = Observation(**{**FIELDS, "local_steps": 2})
    assert [rows.tolist() for rows in seen.batches] == [[0, 1], [0, 1]]


def test_the_gradient_of_an_update_is_what_went_off_by_rate_and_steps() -> None:
    sent, received = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([0.5, 3.0]), "running_mean": torch.zeros(1)}
    found = gradient_of_update(sent, received, learning_rate=0.25, local_steps=2)
    assert {name: tensor.tolist() for name, tensor in found.items()} == {"w": [1.0, -2.0]}


@pytest.mark.parametrize(
    ("received", "options", "sentence"),
    [
        ({}, {"learning_rate": 0.1}, "lacks w, which the server sent"),
        ({"w": torch.zeros(3)}, {"learning_rate": 0.1}, r"w of shape \(3,\), the server sent \(2,\)"),
        ({"w": torch.zeros(2)}, {"learning_rate": 0.0}, "learning_rate = 0.0, local_steps = 1"),
        ({"w": torch.zeros(2)}, {"learning_rate": 0.1, "local_steps": 0}, "local_steps = 0"),
    ],
)
def test_an_update_that_is_none_is_refused(
    received: dict[str, torch.Tensor], options: dict[str, float], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        gradient_of_update({"w": torch.zeros(2)}, received, **options)
