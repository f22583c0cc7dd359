"""What tests of inversions share: small networks in float64, and what a server sees of a client that has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thornbed.attacks.inversion import Observation
from thornbed.clients.local_training import one_thread


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.fixture
def network() -> Callable[..., nn.Module]:
    """Return the maker of a network with two convolutions, batch norm and a linear layer, in float64."""

    def make(seed: int = 0, channels: int = 2, num_classes: int = 5, norm: bool = True) -> nn.Module:
        source = torch.Generator().manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1, bias=not norm),
            nn.BatchNorm2d(6) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Conv2d(6, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * 9, num_classes),
        ).to(torch.float64)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3, generator=source)
        for layer in model:
            if isinstance(layer, nn.BatchNorm2d):  # statistics as of some training
                nn.init.uniform_(layer.weight, 0.5, 1.5, generator=source)
                nn.init.normal_(layer.running_mean, std=0.5, generator=source)
                nn.init.uniform_(layer.running_var, 0.5, 2.0, generator=source)
        return model

    return make


@pytest.fixture
def observe() -> Callable[..., Observation]:
    """Return a function that trains as a client does, one gradient, and gives what the server sees of it."""

    def see(model: nn.Module, x: Tensor, y: Tensor, **more: Any) -> Observation:
        model.train(more.get("batch_norm") == "training")
        loss = F.cross_entropy(model(x), y)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        names = [name for name, _ in model.named_parameters()]
        fields: dict[str, Any] = {
            "model": model,
            "gradient": dict(zip(names, gradients, strict=True)),
            "num_samples": len(x),
            "sample_shape": tuple(x.shape[1:]),
            "num_classes": model(x).shape[1],
            "labels": y,
        }
        return Observation(**{**fields, **more})

    return see


@pytest.fixture
def images() -> Callable[..., Tensor]:
    """Return the maker of random images (n, C, H, W) in [0, 1], float64."""

    def make(n: int, shape: tuple[int, ...] = (2, 6, 6), seed: int = 1) -> Tensor:
        return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    return make
