"""Predict from a few agents at a time and let all such choices vote; few agents are in few of them.

Paper: A. Levine and S. Feizi, "Robustness Certificates for Sparse Adversarial Attacks by Randomized Ablation", AAAI
2020, with agents in place of pixels, as in Liu, Xie, Koyejo, Li, "CoPur", NeurIPS 2022, Section 4. An agent that is
left out has to look unlike any that sends something: its block is the mean, and one more number of each block tells
whether it is there.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from thornbed.defenses.fusion_head import FittedHead, HeadTraining, fit_head
from thornbed.defenses.inference import Prediction, Query, decided, finite_features
from thornbed.defenses.inference._votes import check_votes, chunks, count_votes, lower_bounds


@dataclass(frozen=True, kw_only=True)
class RandomizedAblation:
    """Take the majority over choices of `keep` usable agents: all if they are at most `trials`, else random ones.

    Over all choices the certificate is exact, over random ones it holds with confidence 1 - alpha. Raises ValueError
    for options out of range.
    """

    keep: int = 3
    trials: int = 1000
    alpha: float = 0.001

    told: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ValueError(f"randomized_ablation needs keep >= 1: keep = {self.keep}")
        check_votes("randomized_ablation", self.trials, self.alpha)

    def fit(
        self, features: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator, training: HeadTraining
    ) -> FittedHead:
        """Return a head of blocks with one more number, trained on `keep` agents drawn anew for each row and epoch."""
        agents = features.shape[1]
        self._check(agents)
        # The mean that stands for a missing block has to be known to whoever predicts: features are centred by it here,
        # so that it is 0, by the wrapper below.
        centre = features.mean(dim=0)
        present = torch.ones(*features.shape[:2], 1, dtype=features.dtype, device=features.device)

        def ablate(head: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            order = torch.rand(len(x), agents, generator=generator).argsort(dim=1)
            return _blanked(x[:, :, :-1], (order < self.keep).to(x.device))

        given = torch.cat([features - centre, present], dim=2)
        fitted = fit_head(given, labels, num_classes, generator, training, ablate)
        fitted.head.register_buffer("centre", centre)
        return fitted

    def predict(self, head: nn.Module, query: Query, generator: torch.Generator) -> Prediction:
        """Return the majority's class and how many agents may lie, or fall silent, without changing it.

        The choices for a query are of the agents usable in it: a block that is not finite is in none of them, like that
        of a silent agent. A query with fewer than `keep` usable agents is not answered, as the head has never seen so
        few. No certificate is lost by that: every choice has one of so many agents, so none tolerates them all.
        """
        features, answered = finite_features("randomized_ablation", query)
        x = features - head.get_buffer("centre")
        shares = torch.zeros(self.logits(head, features).shape, device=x.device)
        tolerated = torch.full((len(x),), -1, device=x.device)
        sets, which = query.usable.to(x.device).unique(dim=0, return_inverse=True)
        for number, usable in enumerate(sets):
            agents: list[int] = usable.nonzero()[:, 0].tolist()
            if len(agents) >= self.keep:
                rows = which == number
                shares[rows], tolerated[rows] = self._vote(head, x[rows], agents, generator)
        return decided(shares, answered, tolerated=torch.where(answered, tolerated, -1))

    def logits(self, head: nn.Module, features: Tensor) -> Tensor:
        """Return the head's logits with all agents there, more than it was trained on."""
        everybody = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        logits: Tensor = head(_blanked(features - head.get_buffer("centre"), everybody))
        return logits

    def _vote(self, head: nn.Module, x: Tensor, agents: list[int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return shares (n, C) of the votes of choices of these agents on centred features, and what is tolerated."""
        whole = math.comb(len(agents), self.keep) <= self.trials
        if whole:
            choices = torch.tensor(list(itertools.combinations(agents, self.keep)))
        else:
            order = torch.rand(self.trials, len(agents), generator=generator).argsort(dim=1)
            choices = torch.tensor(agents)[order[:, : self.keep]]
        kept = torch.zeros(len(choices), x.shape[1], dtype=torch.bool)
        kept[torch.arange(len(choices))[:, None], choices] = True
        rows = iter(kept.to(x.device))

        def make(copies: int) -> Tensor:
            return torch.stack([_blanked(x, next(rows).expand(len(x), -1)) for _ in range(copies)])

        votes = count_votes(head, chunks(len(choices), make))
        return votes / len(choices), self._tolerated(votes, len(choices), len(agents), whole)

    def _tolerated(self, votes: Tensor, trials: int, agents: int, whole: bool) -> Tensor:
        """Return how many liars cannot change the class with most of the votes (n, C) that `trials` choices gave.

        q liars are in `touched` of all choices.
        """
        tolerated = torch.full((len(votes),), -1, device=votes.device)
        choices = math.comb(agents, self.keep)
        two = votes.topk(2, dim=1).values
        lower = lower_bounds(votes, trials, self.alpha)
        for liars in range(agents + 1):
            touched = choices - math.comb(agents - liars, self.keep)
            holds = two[:, 0] - two[:, 1] > 2 * touched if whole else lower - touched / choices > 0.5
            tolerated = torch.where(holds, liars, tolerated)
        return tolerated

    def _check(self, agents: int) -> None:
        if self.keep > agents:
            raise ValueError(f"randomized_ablation needs keep <= agents: keep = {self.keep}, agents = {agents}")


def _blanked(x: Tensor, kept: Tensor) -> Tensor:
    """Return centred blocks (b, M, d), 0 where they are not kept (b, M), and whether they are: (b, M, d + 1)."""
    return torch.cat([x * kept[:, :, None], kept[:, :, None].to(x.dtype)], dim=2)
