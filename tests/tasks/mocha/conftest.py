"""Small federations that tests of the solver share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from thornbed.tasks.mocha.objective import Coupling, unrelated
from thornbed.tasks.multitask import Loss, Points


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def federation() -> Callable[..., tuple[Points, ...]]:
    """Return a function that makes nodes whose weights lie around shared ones; sizes differ, labels are noisy."""

    def make(loss: Loss, m: int = 4, d: int = 3, n: int = 12, seed: int = 0) -> tuple[Points, ...]:
        rng = np.random.default_rng(seed)
        shared, nodes = rng.normal(size=d), []
        for node in range(m):
            x = rng.normal(size=(n + 3 * node, d))
            z = x @ (shared + 0.3 * rng.normal(size=d)) + 0.4 * rng.normal(size=len(x))
            y = z + 2 if loss == "squared" else np.where(z > 0, 1.0, -1.0)
            nodes.append(Points(x, y))
        return tuple(nodes)

    return make


@pytest.fixture
def coupling() -> Callable[..., Coupling]:
    def make(m: int = 4, lambda1: float = 0.1, lambda2: float = 0.05) -> Coupling:
        return Coupling(unrelated(m), lambda1, lambda2)

    return make
