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

from defenses.fusion_head import FittedHead, HeadTraining, fit_head
from defenses.inference import Prediction, Query, decided, finite_features
from defenses.inference._votes import check_votes, chunks, count_votes, lower_bounds


@dataclass(frozen=True, kw_only=True)
class RandomizedAblation:
    """Take the majority over choices of `keep` observed agents: all if they are at most `trials`, else random ones.

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
        """Return the majority's class and how many agents may lie without changing it.

        Raises ValueError where fewer agents are observed than `keep`.
        """
        features, answered = finite_features("randomized_ablation", query)
        agents: list[int] = query.observed.nonzero()[:, 0].tolist()
        self._check(len(agents))
        whole = math.comb(len(agents), self.keep) <= self.trials
        if whole:
            choices = torch.tensor(list(itertools.combinations(agents, self.keep)))
        else:
            order = torch.rand(self.trials, len(agents), generator=generator).argsort(dim=1)
            choices = torch.tensor(agents)[order[:, : self.keep]]
        kept = torch.zeros(len(choices), features.shape[1], dtype=torch.bool)
        kept[torch.arange(len(choices))[:, None], choices] = True
        rows = iter(kept.to(features.device))
        x = features - head.get_buffer("centre")

        def make(copies: int) -> Tensor:
            return torch.stack([_blanked(x, next(rows).expand(len(x), -1)) for _ in range(copies)])

        votes = count_votes(head, chunks(len(choices), make))
        tolerated = self._tolerated(votes, len(agents), whole)
        return decided(votes / len(choices), answered, tolerated=torch.where(answered, tolerated, -1))

    def logits(self, head: nn.Module, features: Tensor) -> Tensor:
        """Return the head's logits with all agents there, more than it was trained on."""
        everybody = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        logits: Tensor = head(_blanked(features - head.get_buffer("centre"), everybody))
        return logits

    def _tolerated(self, votes: Tensor, agents: int, whole: bool) -> Tensor:
        """Return how many liars cannot change the class with most votes (n, C); q of them are in `touched` choices."""
        tolerated = torch.full((len(votes),), -1, device=votes.device)
        choices = math.comb(agents, self.keep)
        two = votes.topk(2, dim=1).values
        lower = lower_bounds(votes, self.alpha)
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
