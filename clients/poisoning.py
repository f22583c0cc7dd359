"""A client that poisons: with labels it changes before it trains, or with the update that it sends.

Paper: Tolpegin, Truex, Gursoy, Liu, "Data Poisoning Attacks Against Federated Learning Systems", ESORICS 2020 (data);
Blanchard, El Mhamdi, Guerraoui, Stainer, "Machine Learning with Adversaries", NeurIPS 2017 (updates).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from attacks.data import DataAttack
from clients.role import Role
from tasks import Samples

UpdateAttack = Callable[[Tensor, torch.Generator], Tensor]


class DataPoisoning(Role):
    """Trains on what a data attack without a backdoor makes of its data."""

    name = "poisoning"

    def __init__(self, attack: DataAttack) -> None:
        self.attack = attack

    def data(self, samples: Samples, generator: torch.Generator) -> Samples:
        """Return the poisoned data."""
        return self.attack.poison(samples, generator)


class UpdatePoisoning(Role):
    """Sends what an attack of `attacks.update` makes of its update and of those its accomplices share."""

    name = "poisoning"

    def __init__(self, attack: UpdateAttack) -> None:
        self.attack = attack

    def outgoing(self, update: Tensor, peers: Tensor, generator: torch.Generator) -> Tensor:
        """Return the poisoned update."""
        return self.attack(peers, generator)
