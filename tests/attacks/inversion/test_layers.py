"""Layer weights against Equations 7 and 8 by hand, and each function of Table I through its two points."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from thornbed.attacks.inversion import Observation
from thornbed.attacks.inversion._layers import layer_weights, shape_values, zero_modifier
from thornbed.tasks.models.resnet20 import resnet20


def seen_of(model: nn.Module, **gradients: torch.Tensor) -> Observation:
    gradient = {name: torch.ones_like(parameter) for name, parameter in model.named_parameters()}
    gradient.update({name.replace("__", "."): tensor for name, tensor in gradients.items()})
    return Observation(model=model, gradient=gradient, num_samples=1, sample_shape=(1, 4, 4), num_classes=2)


class Small(nn.Module):
    """Three convolutions, two batch norms, two linear layers; nothing is ever computed with it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm0 = nn.BatchNorm2d(1)
        self.conv1 = nn.Conv2d(1, 2, 1)
        self.conv2 = nn.Conv2d(2, 2, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(2)
        self.conv3 = nn.Conv2d(2, 1, 2, bias=False)
        self.fc1 = nn.Linear(4, 3)
        self.fc2 = nn.Linear(3, 2)


def test_the_weights_of_a_hand_made_network() -> None:
    # l = 1, 3, 5 at beta 5; half of conv2's gradient is zero, three quarters of conv3's
    seen = seen_of(
        Small(),
        conv2__weight=torch.tensor([[1.0, 0.0], [0.0, 3.0]]).view(2, 2, 1, 1),
        conv3__weight=torch.tensor([0.0, 0.0, 0.0, 2.0] * 2).view(1, 2, 2, 2),
    )
    weights = layer_weights(seen, shape="linear", beta=5.0, relu_modifier=True, batch_norm="mean")
    assert weights == {
        "norm0.weight": 3.0, "norm0.bias": 3.0, "conv1.weight": 1.0, "conv1.bias": 1.0, "conv2.weight": 6.0,
        "norm2.weight": 3.0, "norm2.bias": 3.0, "conv3.weight": 20.0, "fc1.weight": 3.0, "fc1.bias": 3.0,
        "fc2.weight": 3.0, "fc2.bias": 3.0,
    }  # fmt: skip
    assert list(weights) == [name for name, _ in seen.model.named_parameters()]
    plain = layer_weights(seen, shape="linear", beta=5.0, relu_modifier=False, batch_norm="preceding")
    assert [plain[f"conv{i}.weight"] for i in (1, 2, 3)] == [1.0, 3.0, 5.0]
    assert (plain["norm0.weight"], plain["norm2.weight"], plain["fc1.weight"]) == (1.0, 3.0, 3.0)
    without = layer_weights(seen, shape="linear", beta=5.0, relu_modifier=False, batch_norm="none")
    assert (without["norm0.bias"], without["norm2.weight"], without["conv3.weight"]) == (0.0, 0.0, 5.0)


def test_resnet20_has_twenty_one_convolutions() -> None:
    with torch.random.fork_rng():
        seen = seen_of(resnet20((3, 32, 32), 10, width=2))
    weights = layer_weights(seen, shape="linear", beta=21.0, relu_modifier=False, batch_norm="none")
    convolutions = [value for name, value in weights.items() if "conv" in name or "downsample.0" in name]
    assert convolutions == [pytest.approx(i) for i in range(1, 22)]
    assert weights["fc.weight"] == pytest.approx(11)


@pytest.mark.parametrize(
    ("shape", "beta", "middle"),
    [
        ("linear", 2.0, 1.5),
        ("linear", 0.5, 0.75),
        ("exponential", 2.0, 1 + (math.e**11 - math.e) / (math.e**21 - math.e)),
        ("exponential", 0.5, 1 - 0.5 * (math.e**11 - math.e) / (math.e**21 - math.e)),
        ("logarithmic", 2.0, 1 + math.log(11) / math.log(21)),
        ("logarithmic", 0.5, 1 - 0.5 * math.log(11) / math.log(21)),
        ("linear", 1.0, 1.0),
    ],
)
def test_the_functions_of_table_one_go_through_their_points(shape, beta, middle) -> None:
    values = shape_values(shape, 21, beta)
    assert len(values) == 21
    assert values[0] == pytest.approx(1.0, abs=1e-12)
    assert values[-1] == pytest.approx(beta)
    assert values[10] == pytest.approx(middle, rel=1e-12)
    steps = [after - before for before, after in itertools.pairwise(values)]
    assert all(step * (beta - 1) > 0 for step in steps) or beta == 1
    bends = [after - before for before, after in itertools.pairwise(steps)]
    # increasing: exponential convex, logarithmic concave; decreasing: the other way round
    sign = {"linear": 0, "exponential": 1, "logarithmic": -1}[shape] * (1 if beta > 1 else -1)
    assert all(bend * sign > 0 for bend in bends) if sign else all(abs(bend) < 1e-12 for bend in bends)


def test_a_single_layer_weighs_one_and_a_thousand_do_not_overflow() -> None:
    assert shape_values("linear", 1, 50.0) == [1.0]
    assert shape_values("exponential", 1000, 50.0)[-1] == pytest.approx(50.0)


def test_the_modifier_is_one_over_the_share_that_is_not_zero() -> None:
    assert zero_modifier(torch.tensor([0.0, 1e-30, -2.0, 0.0])) == 2.0
    assert zero_modifier(torch.ones(3)) == 1.0
    assert zero_modifier(torch.zeros(3)) == 1.0


def test_a_model_without_convolutions_can_only_be_weighed_evenly() -> None:
    seen = seen_of(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)))
    options = {"shape": "linear", "relu_modifier": True, "batch_norm": "mean"}
    with pytest.raises(ValueError, match=r"this model has none: beta = 50\.0; beta=1 weighs all"):
        layer_weights(seen, beta=50.0, **options)
    assert layer_weights(seen, beta=1.0, **options) == {"1.weight": 1.0, "1.bias": 1.0}
