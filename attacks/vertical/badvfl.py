"""Find the target's samples by the direction of their gradients, and put others with a white square in their place.

Paper: Y. Xuan, X. Chen, Z. Zhao, B. Tang, Y. Dong, "Practical and General Backdoor Attacks against Vertical Federated
Learning", ECML-PKDD 2023, with its two modules: a sample whose gradient is like that of a known one of the target class
is taken for one (source data detection), and its features are replaced by those of samples that are none, so that only
the trigger is left to learn from (source data perturbation). Extended to several adversaries as in Lee et al.,
"Cooperative Decentralized Backdoor Attacks on Vertical Federated Learning", 2025, Section VI-A: they vote, and divide
the square, 9 x 9 pixels. This is not the BadVFL of M. Naseri, Y. Han and E. De Cristofaro.

The paper was not at hand when this was written, only its abstract and what Lee et al. tell of it; thresholds and
lengths of time are ours. Of the known labels it uses one reference, as they say: the others neither teach it anything
nor are they poisoned for being known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from thornbed.attacks import Knowledge
from thornbed.attacks.vertical import VerticalAttack, View
from thornbed.attacks.vertical._replacing import ReplacingAdversary
from thornbed.attacks.vertical.coalition import known_targets
from thornbed.attacks.vertical.triggers import Size, Trigger, check_area, one_trigger
from thornbed.tasks.blocks import Block

NEEDS = frozenset({Knowledge.OWN_DATA, Knowledge.OTHER_ATTACKERS, Knowledge.FEW_LABELS, Knowledge.OWN_GRADIENTS})
POOL = 512


@dataclass(frozen=True, kw_only=True)
class Badvfl(VerticalAttack):
    """The attack of Xuan et al.; see `VerticalAttack` for the options that all have.

    `size` (h, w) and `center` of the white square as in `attacks.vertical.triggers.one_trigger`; `value` of its pixels,
    decoded. `warm_up`: passes over its rows that an adversary lets go by; `watching`: passes in which it compares.
    `similarity`: the least mean cosine with the reference's gradient. `references`: known samples of the target class
    whose gradients are averaged. `swap`: whether features are replaced, or only stamped.
    """

    size: Size = (9, 9)
    center: Size | None = None
    area: int = 81
    value: float = 1.0
    warm_up: float = 1.0
    watching: float = 1.0
    similarity: float = 0.6
    references: int = 1
    swap: bool = True

    name: ClassVar[str] = "badvfl"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_area(self.name, self.size, 1, self.area)
        most = torch.finfo(torch.float32).max
        if not -most <= self.value <= most:
            raise ValueError(f"badvfl needs a value within +-{most:.2g}: value = {self.value}")
        if not -1 <= self.similarity <= 1:
            raise ValueError(f"badvfl needs -1 <= similarity <= 1: similarity = {self.similarity}")
        if not 0 <= self.warm_up < self.warm_up + self.watching:
            raise ValueError(
                f"badvfl needs warm_up >= 0 and watching > 0: warm_up = {self.warm_up}, watching = {self.watching}"
            )
        if self.references < 1:
            raise ValueError(f"badvfl needs references >= 1: references = {self.references}")
        if self.references > (targets := known_targets(self.num_known, self.known_target_share)):
            raise ValueError(
                f"badvfl needs as many known labels of the target class as references: {targets} known, "
                f"references = {self.references}"
            )

    def check(self, blocks: Mapping[int, Block], sample_shape: tuple[int, ...], num_classes: int) -> None:
        """See `VerticalAttack`."""
        super().check(blocks, sample_shape, num_classes)
        self._triggers(blocks, sample_shape)

    def begins(self, view: View, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw the references; raises ValueError where fewer are known."""
        targets = view.known_targets
        if len(targets) < self.references:
            raise ValueError(
                f"badvfl needs {self.references} known labels of the target class: it knows {len(targets)}"
            )
        trigger = self._triggers(view.blocks, view.sample_shape)[view.party]
        return {
            "keep": trigger.keep,
            "add": trigger.add,
            "references": targets[torch.randperm(len(targets), generator=generator)[: self.references]],
            "heard": torch.tensor(0),
            "similarity": torch.zeros(len(view.x)),
            "times": torch.zeros(len(view.x)),
        }

    def recalled(self, view: View, memory: Mapping[str, Tensor]) -> BadvflAdversary:
        """See `VerticalAttack`."""
        return BadvflAdversary(self, view, memory)

    def _triggers(self, blocks: Mapping[int, Block], sample_shape: tuple[int, ...]) -> dict[int, Trigger]:
        white = torch.full(self.size, self.value)
        return one_trigger(blocks, sample_shape, white, center=self.center, overwrites=True)


class BadvflAdversary(ReplacingAdversary):
    """One adversary, that compares gradients as they come."""

    watches: ClassVar[bool] = True

    def __init__(self, attack: Badvfl, view: View, memory: Mapping[str, Tensor]) -> None:
        super().__init__(view, memory)
        self.attack = attack

    def hears(self, rows: Tensor, gradients: Tensor) -> None:
        """Compare with the mean of the references' latest gradients, which may be as old as a pass over the rows."""
        memory, directions = self.memory, F.normalize(gradients.detach(), dim=1)
        compares = self.attack.warm_up * len(self.view.x) <= memory["heard"] and self.vote() is None
        memory["heard"] = memory["heard"] + len(rows)
        for place, reference in enumerate(memory["references"]):
            if (own := rows == reference).any():
                latest = memory.get("directions", directions.new_zeros(len(memory["references"]), directions.shape[1]))
                memory["directions"] = latest.index_copy(0, torch.tensor([place]), directions[own][:1])
        if "directions" in memory and compares:
            alike = F.cosine_similarity(directions, memory["directions"].sum(dim=0)[None], dim=1)
            memory["similarity"] = memory["similarity"].index_add(0, rows, alike)
            memory["times"] = memory["times"].index_add(0, rows, torch.ones_like(alike))

    def vote(self) -> Tensor | None:
        """See `Adversary`."""
        if self.memory["heard"] < (self.attack.warm_up + self.attack.watching) * len(self.view.x):
            return None
        times = self.memory["times"]
        alike = (times > 0) & (self.memory["similarity"] >= self.attack.similarity * times)
        alike[self.memory["references"]] = True
        return alike.nonzero()[:, 0]

    def agree(self, rows: Tensor, generator: torch.Generator) -> None:
        """See `Adversary`; what rows are replaced by are up to 512 that it does not take for the target's."""
        super().agree(rows, generator)
        own = self.vote()
        if not self.attack.swap or own is None:
            return
        others = torch.ones(len(self.view.x), dtype=torch.bool)
        others[own] = False
        others[rows] = False
        free = others.nonzero()[:, 0]
        if len(free):  # else every row is taken for the target's, and nothing is left to put in their place
            self.memory["pool"] = self.view.x[free[torch.randperm(len(free), generator=generator)[:POOL]]]
