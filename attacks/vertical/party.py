"""A party of SplitNN that attacks: where the verbs of an adversary stand in a step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from thornbed.attacks.vertical import Adversary
from thornbed.tasks.split.party_work import PartyWork
from thornbed.tasks.split.records import Records


@dataclass
class AttackingParty:
    """A party whose adversary changes what it embeds and what it sends, and hears what came back where it watches.

    `last` are the rows (b,) that it sent last, until it is asked for nothing more.
    """

    records: Records
    work: PartyWork
    adversary: Adversary
    generator: torch.Generator
    last: Tensor | None = None

    def step(self, gradient: Tensor | None, ids: Tensor | None) -> Tensor | None:
        """See `tasks.split.parties.Party`."""
        if gradient is not None and self.last is not None and self.adversary.watches:
            self.adversary.hears(self.last, gradient)
            gradient = self.adversary.learns(self.last, gradient)
        if ids is None:
            self.last = None
            return self.work.step(gradient, None)
        self.last = rows = self.records.ranks(ids)
        embeddings = self.work.step(gradient, self.adversary.embeds(rows, self.records.take(ids), self.generator))
        return None if embeddings is None else self.adversary.sends(rows, embeddings, self.generator)
