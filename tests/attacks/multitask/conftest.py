"""A small attacked federation that tests of this folder share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from thornbed.attacks.multitask import NodesView
from thornbed.tasks.mocha.objective import Coupling, unrelated
from thornbed.tasks.multitask import Loss, Points


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def view() -> Callable[..., NodesView]:
    """Return a function that makes a view of m nodes with d features and an intercept; the first half are targets."""

    def make(loss: Loss = "squared", *, m: int = 4, d: int = 3, seed: int = 0, **more: object) -> NodesView:
        rng = np.random.default_rng(seed)
        shared, nodes = rng.normal(size=d), []
        for node in range(m):
            x = rng.normal(size=(15 + 2 * node, d))
            z = x @ (shared + 0.3 * rng.normal(size=d)) + 0.3 * rng.normal(size=len(x))
            y = z + 1 if loss == "squared" else np.where(z > 0, 1.0, -1.0)
            nodes.append(Points(np.column_stack([x, np.ones(len(x))]), y))
        kept = {"coupling": Coupling(unrelated(m), 0.3, 0.05), "intercept": True, "targets": tuple(range(m // 2))}
        return NodesView(**{"points": tuple(nodes), "loss": loss, **kept, **more})

    return make
