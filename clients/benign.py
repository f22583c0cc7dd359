"""An honest client, which may harden what it trains on, and protect the update that it sends."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from thornbed.attacks.data import GroupMember, Leaking
from thornbed.attacks.update import Sight
from thornbed.clients.role import Role
from thornbed.defenses.hardening import Hardening
from thornbed.tasks import Samples

Perturbation = Callable[[Tensor, torch.Generator], Tensor]


ALONE = GroupMember(0, 1)


class Benign(Role):
    """Trains on its own data, hardened by `defenses.hardening`, and sends its update through `defenses.perturbation`.

    Of neither need there be one; of several each acts on what the one before made.

    Where an attack's samples are found on honest clients too, the client, `member` of the honest ones, has its part of
    them, rightly labelled.
    """

    def __init__(
        self,
        perturbations: Sequence[Perturbation] = (),
        leaking: Sequence[Leaking] = (),
        member: GroupMember = ALONE,
        *,
        hardenings: Sequence[Hardening] = (),
    ) -> None:
        self.perturbations, self.hardenings = tuple(perturbations), tuple(hardenings)
        self.leaking, self.member = tuple(leaking), member

    def data(self, samples: Samples, generator: torch.Generator) -> Samples:
        """Return its samples, and what leaks to it."""
        for attack in self.leaking:
            samples = attack.leak(samples, self.member, generator)
        return samples

    @property
    def edits_samples(self) -> bool:
        """Whether there is a hardening."""
        return bool(self.hardenings)

    @property
    def edits_update(self) -> bool:
        """Whether there is a perturbation."""
        return bool(self.perturbations)

    def prepare(self, network: nn.Module, samples: Samples, generator: torch.Generator) -> Samples:
        """Return the samples, hardened against what the server's model has learned."""
        for hardening in self.hardenings:
            decoded = samples.decoded()
            samples = Samples(*hardening.harden(network, decoded.x, decoded.y, generator))
        return samples

    def outgoing(self, update: Tensor, peers: Tensor, generator: torch.Generator, sight: Sight) -> Tensor:
        """Return the update, perturbed."""
        for perturbation in self.perturbations:
            update = perturbation(update, generator)
        return update
