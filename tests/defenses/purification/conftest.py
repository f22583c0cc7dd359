"""A manifold that is known exactly: a random subspace of what seven agents send, with its projection."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from thornbed.clients.local_training import one_thread
from thornbed.defenses.autoencoder import Autoencoder

AGENTS, DIM, RANK = 7, 3, 2


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.fixture
def manifold() -> Autoencoder:
    """Return a linear autoencoder that gives back every point of its range; agents have unlike scales and means."""
    return projection(AGENTS, DIM, RANK, seed=1)


@pytest.fixture
def points(manifold: Autoencoder) -> Callable[[int], Tensor]:
    """Return a function that draws so many points (n, M, d) of the manifold, float64."""
    return lambda n: drawn(manifold, n)


def drawn(manifold: Autoencoder, n: int, seed: int = 2) -> Tensor:
    rank = manifold.output.in_features
    source = torch.Generator().manual_seed(seed)
    return manifold.decode(torch.randn(n, rank, generator=source, dtype=manifold.mean.dtype)).detach()


def projection(agents: int, dim: int, rank: int, seed: int) -> Autoencoder:
    source = torch.Generator().manual_seed(seed)
    mean = torch.randn(agents, dim, generator=source, dtype=torch.float64)
    scale = torch.rand(agents, generator=source, dtype=torch.float64) + 0.5
    manifold = Autoencoder(mean, scale, rank, source)
    basis = torch.linalg.qr(torch.randn(agents * dim, rank, generator=source, dtype=torch.float64))[0]
    with torch.no_grad():
        manifold.output.weight.copy_(basis)
        manifold.encoder[-1].weight.copy_(basis.T)
    return manifold.eval().requires_grad_(False)
