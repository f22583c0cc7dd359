"""Networks, one a file: `NAME(sample_shape, num_classes, *, options) -> nn.Module` returns logits (n, num_classes).

Initial weights come from torch's current generator; the caller forks and seeds it (see flower_apps/build.py). What
these functions return expects normalised input; `normalised` turns it into a network that takes decoded samples.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


def normalised(network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> nn.Module:
    """Return a copy of the network that first turns each channel or feature c of its input into (x - mean_c) / std_c.

    The parameters, their names and the state_dict are exactly the network's own, so weights go back and forth between
    the two: the constants are buffers outside the state_dict, and the step is a hook before the forward pass rather
    than a module around the network. `mean` and `std` describe decoded samples (n, c, ...) as in `Task`, one entry
    per channel or feature; both empty: a plain copy. Raises ValueError where their lengths differ, where a deviation
    is not above 0, or where the network normalises already.
    """
    if len(mean) != len(std):
        raise ValueError(f"normalisation needs as many means as deviations: {len(mean)} means, {len(std)} deviations")
    if any(not deviation > 0 for deviation in std):
        raise ValueError(f"normalisation needs deviations above 0: std = {std}")
    if hasattr(network, "input_mean"):
        raise ValueError("the network normalises its input already; normalise the one it was made from")
    network = copy.deepcopy(network)
    if mean:
        network.register_buffer("input_mean", torch.tensor(mean), persistent=False)
        network.register_buffer("input_std", torch.tensor(std), persistent=False)
        network.register_forward_pre_hook(_normalise)
    return network


def _normalise(network: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Normalise the first of the inputs; a function of the module, so that copies and pickles use their own buffers."""
    x, *others = inputs
    return ((x - _per_channel(network.input_mean, x)) / _per_channel(network.input_std, x), *others)


def _per_channel(constants: Any, x: Tensor) -> Tensor:
    """(c,) -> (c, 1, ...), so that it meets the second axis of x (n, c, ...)."""
    if x.shape[1] != len(constants):
        raise ValueError(f"the input has {x.shape[1]} channels or features, the normalisation {len(constants)}")
    return constants.view(-1, *[1] * (x.ndim - 2))
