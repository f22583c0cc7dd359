"""A client that poisons: what it trains on, what its training minimises, or the update that it sends.

Paper: Tolpegin, Truex, Gursoy, Liu, "Data Poisoning Attacks Against Federated Learning Systems", ESORICS 2020 (data);
Blanchard, El Mhamdi, Guerraoui, Stainer, "Machine Learning with Adversaries", NeurIPS 2017 (updates).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from thornbed.attacks.data import DataAttack
from thornbed.attacks.training import TrainingAttack
from thornbed.attacks.update import Sight, outgoing
from thornbed.clients.role import Group, Role
from thornbed.tasks import Samples

UpdateAttack = Callable[..., Tensor]
"""`(peers (k, d), generator) -> (d,)`, or the same with a `Sight` as third parameter."""


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

    def __init__(self, attack: UpdateAttack, *, sees_accomplices: bool = False) -> None:
        self.attack, self._sees_accomplices = attack, sees_accomplices

    @property
    def sees_accomplices(self) -> bool:
        """Whether the attack declares that it needs what other attackers hold."""
        return self._sees_accomplices

    def outgoing(self, update: Tensor, peers: Tensor, generator: torch.Generator, sight: Sight) -> Tensor:
        """Return the poisoned update."""
        return outgoing(self.attack, peers if self._sees_accomplices else peers[:1], generator, sight)


class TrainingPoisoning(Role):
    """Trains towards what an attack of `attacks.training` wants, and sends what it makes of the result."""

    name = "poisoning"

    def __init__(self, attack: TrainingAttack, *, sees_accomplices: bool = False) -> None:
        self.attack, self._sees_accomplices = attack, sees_accomplices

    @property
    def sees_accomplices(self) -> bool:
        """Whether the attack declares that it needs what other attackers hold."""
        return self._sees_accomplices

    def objective(self, cross_entropy: Tensor, distance: Tensor) -> Tensor:
        """Return the attack's objective."""
        return self.attack.objective(cross_entropy, distance)

    def outgoing(self, update: Tensor, peers: Tensor, generator: torch.Generator, sight: Sight) -> Tensor:
        """Return what the attack makes of the update."""
        return self.attack.outgoing(peers if self._sees_accomplices else peers[:1], generator)


class GroupPoisoning(Role):
    """Acts as one with the other members of an attack of `attacks.group`."""

    name = "poisoning"

    def __init__(self, attack: Group) -> None:
        self.attack = attack

    @property
    def group(self) -> Group:
        """The attack."""
        return self.attack
