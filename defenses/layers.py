"""Linear layers with leaky ReLU between them, initialised from a generator."""

from __future__ import annotations

import itertools

import torch
from torch import nn


def leaky_layers(
    widths: tuple[int, ...], slope: float, generator: torch.Generator, dtype: torch.dtype
) -> nn.Sequential:
    """Return layers of these widths, the last one linear.

    Weights are normal with the variance that keeps a signal's size both ways (X. Glorot, Y. Bengio, "Understanding the
    Difficulty of Training Deep Feedforward Neural Networks", AISTATS 2010); offsets are 0.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        linear = nn.utils.skip_init(nn.Linear, inputs, outputs, dtype=dtype)
        nn.init.normal_(linear.weight, std=(2 / (inputs + outputs)) ** 0.5, generator=generator)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.LeakyReLU(slope)]
    return nn.Sequential(*layers[:-1])
