"""In which order the samples come: the server of vertical learning decides it, since it asks for rows."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor


def num_steps(count: int, batch_size: int, passes: float) -> int:
    """Return how many steps so many passes over `count` samples are, a part of a step counting as one.

    Raises ValueError for count and batch_size < 1, and for passes that are not finite and > 0.
    """
    if count < 1 or batch_size < 1:
        raise ValueError(f"vertical learning needs samples and batch_size >= 1: {count} samples, {batch_size = }")
    if not 0 < passes < math.inf:
        raise ValueError(f"vertical learning needs finite passes > 0: passes = {passes}")
    return math.ceil(Fraction(str(passes)) * -(-count // batch_size))


def batches(count: int, batch_size: int, passes: float, generator: torch.Generator) -> list[Tensor]:
    """Return the rows (b,) of each step, every pass in an order of its own; raises ValueError as `num_steps` does."""
    steps, found = num_steps(count, batch_size, passes), list[Tensor]()
    while len(found) < steps:
        found += torch.randperm(count, generator=generator).split(batch_size)
    return found[:steps]
