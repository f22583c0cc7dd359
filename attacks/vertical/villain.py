"""Find the target's samples by swapping embeddings and hearing whether the gradient shrinks, and put a trigger on them.

Paper: Y. Bai, Y. Chen, H. Zhang, W. Xu, H. Weng, D. Goodman, "VILLAIN: Backdoor Attacks Against Vertical Split
Learning", USENIX Security 2023. A candidate's embedding is swapped for that of a known sample of the target; where the
gradient becomes short, the server's label is the target. Candidates are those that a linear classifier on the
embeddings, which learns from each answer, finds likeliest. The trigger is on the embedding: a stripe of +, +, -, - on
the numbers that vary most, as long as they vary, part of it dropped and its length drawn anew each time in training.
Extended to several adversaries as in Lee et al., 2025, Section VI-A: they vote, and the 35% of their embeddings that
the trigger takes are 35% of each.

The paper's bound mu on the gradient is a length; here it is a multiple of the median length that was heard, since the
length depends on the batch and on how far the training has come.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from thornbed.attacks import Knowledge
from thornbed.attacks.vertical import Adversary, VerticalAttack, View

NEEDS = frozenset({Knowledge.OWN_DATA, Knowledge.OTHER_ATTACKERS, Knowledge.FEW_LABELS, Knowledge.OWN_GRADIENTS})
EXAMPLES = 1024


@dataclass(frozen=True, kw_only=True)
class Villain(VerticalAttack):
    """The attack of Bai et al.; see `VerticalAttack` for the options that all have.

    `warm_up`: passes over its rows before the first swap, one at least to know the gradients' lengths; `swapping`:
    passes in which it swaps, `candidates` in each batch. A candidate is taken for the target's where its gradient
    becomes at most `ratio` (theta) of what it was and `bound` (mu) of the median. `share`: of the embedding's numbers
    that the trigger takes; `magnitude` (beta): its length in mean deviations of these. In training each of its numbers
    is dropped with probability `dropout`, and the rest multiplied by a number drawn from `shift`.
    """

    warm_up: float = 2.0
    swapping: float = 2.0
    candidates: int = 14
    ratio: float = 0.6
    bound: float = 1.0
    share: float = 0.35
    magnitude: float = 0.4
    dropout: float = 0.25
    shift: tuple[float, float] = (0.6, 1.2)

    name: ClassVar[str] = "villain"

    def __post_init__(self) -> None:
        super().__post_init__()
        for option, least in (("warm_up", 1), ("candidates", 1)):
            if getattr(self, option) < least:
                raise ValueError(f"villain needs {option} >= {least}: {option} = {getattr(self, option)}")
        for option in ("swapping", "ratio", "bound", "magnitude"):
            if not 0 < getattr(self, option) < math.inf:
                raise ValueError(f"villain needs a finite {option} > 0: {option} = {getattr(self, option)}")
        if not 0 < self.share <= 1:
            raise ValueError(f"villain needs 0 < share <= 1: share = {self.share}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"villain needs 0 <= dropout < 1: dropout = {self.dropout}")
        if not 0 < self.shift[0] <= self.shift[1] < math.inf:
            raise ValueError(f"villain needs a shift of two numbers, 0 < low <= high: shift = {self.shift}")

    def begins(self, view: View, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw the reference; raises ValueError where none is known."""
        targets = view.known_targets
        if not len(targets):
            raise ValueError("villain needs a known label of the target class: it knows 0")
        verdicts = torch.zeros(len(view.x), dtype=torch.int8)
        verdicts[view.known] = torch.where(view.labels == view.target, 1, 2).to(torch.int8)
        return {
            "reference": targets[torch.randint(len(targets), (1,), generator=generator)],
            "heard": torch.tensor(0),
            "lengths": torch.full((len(view.x),), torch.nan),
            "verdicts": verdicts,
            "swapped": torch.zeros(0, dtype=torch.int64),
        }

    def recalled(self, view: View, memory: Mapping[str, Tensor]) -> VillainAdversary:
        """See `VerticalAttack`."""
        return VillainAdversary(self, view, memory)


class VillainAdversary(Adversary):
    """One adversary; of each row it remembers how long its gradient was, and what a swap told: 1 is the target's."""

    watches: ClassVar[bool] = True

    def __init__(self, attack: Villain, view: View, memory: Mapping[str, Tensor]) -> None:
        super().__init__(view, memory)
        self.attack = attack

    def vote(self) -> Tensor | None:
        """See `Adversary`."""
        if self.memory["heard"] < (self.attack.warm_up + self.attack.swapping) * len(self.view.x):
            return None
        return (self.memory["verdicts"] == 1).nonzero()[:, 0]

    def agree(self, rows: Tensor, generator: torch.Generator) -> None:
        """Make the trigger from the embeddings that it sent last."""
        recent, size = self.memory["recent"], self.memory["recent"].shape[1]
        # One embedding alone, the last of a pass, has no spread.
        spread = (recent if len(recent) > 1 else self.memory["examples"]).std(dim=0)
        places = spread.topk(max(1, round(self.attack.share * size))).indices.sort().values
        stripe = torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(size)[: len(places)].to(spread)
        trigger = torch.zeros_like(spread)
        trigger[places] = self.attack.magnitude * spread[places].mean() * stripe
        self.memory.update(rows=rows, trigger=trigger, swapped=self.memory["swapped"][:0])

    def sends(self, rows: Tensor, embeddings: Tensor, generator: torch.Generator) -> Tensor:
        """See `Adversary`."""
        memory, sent = self.memory, embeddings.clone()
        if "trigger" in memory:
            poisoned = torch.isin(rows, memory["rows"])
            low, high = self.attack.shift
            kept = torch.rand(sent[poisoned].shape, generator=generator) >= self.attack.dropout
            factor = low + (high - low) * torch.rand(len(kept), 1, generator=generator)
            sent[poisoned] += (kept * factor).to(sent) * memory["trigger"]
            return sent
        memory["recent"], memory["swapped"] = embeddings.clone(), rows[:0]
        self._learn_from_known(rows, embeddings)
        if (own := rows == memory["reference"]).any():
            memory["anchor"] = embeddings[own][0].clone()
        if self._swaps() and "anchor" in memory:
            chosen = self._candidates(rows, embeddings)
            sent[chosen] = memory["anchor"]
            memory["swapped"] = rows[chosen]
        return sent

    def hears(self, rows: Tensor, gradients: Tensor) -> None:
        """Judge those that were swapped by their gradients' lengths, and remember those of the others."""
        memory = self.memory
        lengths, swapped = gradients.detach().norm(dim=1), torch.isin(rows, memory["swapped"])
        memory["heard"] = memory["heard"] + len(rows)
        before = memory["lengths"][rows[swapped]]
        usual = memory["lengths"].nanmedian()
        short = (lengths[swapped] <= self.attack.ratio * before) & (lengths[swapped] <= self.attack.bound * usual)
        memory["verdicts"] = memory["verdicts"].index_copy(0, rows[swapped], torch.where(short, 1, 2).to(torch.int8))
        memory["lengths"] = memory["lengths"].index_copy(0, rows[~swapped], lengths[~swapped])
        if bool(swapped.any()):
            self._remember(memory["recent"][swapped], short)

    def learns(self, rows: Tensor, gradients: Tensor) -> Tensor:
        """Its bottom model learns nothing from a gradient that is not that of its own embedding."""
        return torch.where(torch.isin(rows, self.memory["swapped"])[:, None], 0.0, gradients)

    def triggers_embeddings(self, embeddings: Tensor) -> Tensor:
        """See `Adversary`."""
        return embeddings + self.memory["trigger"] if "trigger" in self.memory else embeddings

    def _swaps(self) -> bool:
        heard = self.memory["heard"] / len(self.view.x)
        return bool(self.attack.warm_up <= heard < self.attack.warm_up + self.attack.swapping)

    def _candidates(self, rows: Tensor, embeddings: Tensor) -> Tensor:
        """Return the places of the likeliest rows of a batch of which nothing is known but their gradients' lengths."""
        open_ = (self.memory["verdicts"][rows] == 0) & self.memory["lengths"][rows].isfinite()
        scores = torch.where(open_, self._scores(embeddings), -torch.inf)
        best = scores.topk(min(self.attack.candidates, len(rows))).indices
        return best[scores[best] > -torch.inf]

    def _scores(self, embeddings: Tensor) -> Tensor:
        """Return how likely each is of the target class: a ridge regression on the embeddings whose class is known."""
        if "examples" not in self.memory:
            return torch.zeros(len(embeddings)).to(embeddings)
        x, y = self.memory["examples"].double(), self.memory["answers"].double()
        mean, spread = x.mean(dim=0), x.std(dim=0) + 1e-6
        x = (x - mean) / spread
        system = x.T @ x + len(x) * 0.1 * torch.eye(x.shape[1], dtype=x.dtype)
        weights = torch.linalg.solve(system, x.T @ (y - y.mean()))
        return (((embeddings.double() - mean) / spread) @ weights).to(embeddings)

    def _learn_from_known(self, rows: Tensor, embeddings: Tensor) -> None:
        known = torch.isin(rows, self.view.known)
        if bool(known.any()):
            self._remember(embeddings[known], self.memory["verdicts"][rows[known]] == 1)

    def _remember(self, embeddings: Tensor, answers: Tensor) -> None:
        """Keep the latest examples, since old ones are of a network that has moved on."""
        memory = self.memory
        if "examples" in memory:
            embeddings = torch.cat([memory["examples"], embeddings])
            answers = torch.cat([memory["answers"], answers])
        memory["examples"], memory["answers"] = embeddings[-EXAMPLES:].clone(), answers[-EXAMPLES:].clone()
