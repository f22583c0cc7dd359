"""An honest client, which may protect the update that it sends."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from clients.role import Role

Perturbation = Callable[[Tensor, torch.Generator], Tensor]


class Benign(Role):
    """Trains on its own data; sends its update through the perturbation of `defenses.perturbation` where one is set."""

    def __init__(self, perturbation: Perturbation | None = None) -> None:
        self.perturbation = perturbation

    @property
    def edits_update(self) -> bool:
        """Whether a defense is set."""
        return self.perturbation is not None

    def outgoing(self, update: Tensor, peers: Tensor, generator: torch.Generator) -> Tensor:
        """Return the update, perturbed where a defense is set."""
        return update if self.perturbation is None else self.perturbation(update, generator)
