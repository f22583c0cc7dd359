"""An adversary that poisons by what it embeds: rows of another origin in place of its own, and a trigger on them."""

from __future__ import annotations

import torch
from torch import Tensor

from thornbed.attacks.vertical import Adversary
from thornbed.attacks.vertical.triggers import Trigger


class ReplacingAdversary(Adversary):
    """Embeds poisoned rows from a pool, one drawn each time, with the trigger; without a pool, what was there with it.

    Of its memory, `keep` and `add` are the trigger, `rows` those to poison, and `pool` (q, c) what replaces them.
    """

    @property
    def trigger(self) -> Trigger:
        """Its portion of the trigger."""
        return Trigger(self.memory["keep"], self.memory["add"])

    def agree(self, rows: Tensor, generator: torch.Generator) -> None:
        """See `Adversary`."""
        self.memory["rows"] = rows

    def embeds(self, rows: Tensor, x: Tensor, generator: torch.Generator) -> Tensor:
        """See `Adversary`."""
        if "rows" not in self.memory:
            return x
        poisoned = torch.isin(rows, self.memory["rows"])
        changed = x.clone()
        changed[poisoned] = self.triggers(self.replaces(x[poisoned], generator), generator)
        return changed

    def triggers(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """See `Adversary`."""
        return self.trigger.stamped(x, generator)

    def replaces(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """See `Adversary`."""
        if "pool" not in self.memory:
            return x
        pool = self.memory["pool"].to(x)
        return pool[torch.randint(len(pool), (len(x),), generator=generator).to(x.device)]
