"""Local optimisers on one weight, against steps worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import Parameter

from thornbed.clients.optimizers.adam import adam
from thornbed.clients.optimizers.sgd import sgd


def path(make: Callable[[list[Parameter]], torch.optim.Optimizer], steps: int = 2) -> list[float]:
    """Return where a weight goes from 1 under the constant gradient 2."""
    weight = Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = make([weight])
    values = []
    for _ in range(steps):
        weight.grad = torch.tensor([2.0], dtype=torch.float64)
        optimizer.step()
        values.append(weight.item())
    return values


def test_plain_steps() -> None:
    assert path(lambda p: sgd(p, 0.25)) == [0.5, 0.0]


def test_momentum_adds_up() -> None:
    # velocity 2, then 0.5 * 2 + 2 = 3
    assert path(lambda p: sgd(p, 0.25, momentum=0.5)) == [0.5, -0.25]


def test_nesterov_looks_ahead() -> None:
    # step 2 + 0.5 * 2 = 3, then velocity 3 and step 2 + 0.5 * 3 = 3.5
    assert path(lambda p: sgd(p, 0.25, momentum=0.5, nesterov=True)) == [0.25, -0.625]


def test_weight_decay_adds_to_the_gradient() -> None:
    # gradient 2 + 4 * 1 = 6, then 2 + 4 * (-0.5) = 0
    assert path(lambda p: sgd(p, 0.25, weight_decay=4.0)) == [-0.5, -0.5]


def test_adam_steps_by_the_learning_rate_under_a_constant_gradient() -> None:
    assert path(lambda p: adam(p, 0.25)) == pytest.approx([0.75, 0.5], abs=1e-7)


def test_adam_betas_are_not_mixed_up() -> None:
    groups = adam([Parameter(torch.ones(1))], 0.25, beta1=0.5, beta2=0.75, weight_decay=0.125).param_groups
    assert groups[0]["betas"] == (0.5, 0.75)
    assert groups[0]["weight_decay"] == 0.125
    assert groups[0]["lr"] == 0.25


def test_refused_options() -> None:
    weights = [Parameter(torch.ones(1))]
    with pytest.raises(ValueError, match=r"momentum = 0\.0, nesterov = True"):
        sgd(weights, 0.1, nesterov=True)
    with pytest.raises(ValueError, match=r"0 <= momentum < 1: momentum = 1\.0"):
        sgd(weights, 0.1, momentum=1.0)
    with pytest.raises(ValueError, match=r"0 <= beta2 < 1: beta2 = 1\.0"):
        adam(weights, 0.1, beta2=1.0)
