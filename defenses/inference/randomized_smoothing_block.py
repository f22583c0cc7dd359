"""Add noise to the corrupted agents' features alone and let copies vote: an oracle, told who is corrupted.

Paper: the baseline "Randomized Smoothing Block" of Liu, Xie, Koyejo, Li, "CoPur: Certifiably Robust Collaborative
Inference via Feature Purification", NeurIPS 2022, Section 5.1, there called an oracle too. Whoever knew the corrupted
agents would rather leave them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from thornbed.defenses.inference import Prediction, Query, decided, finite_features
from thornbed.defenses.inference.randomized_smoothing import RandomizedSmoothing


@dataclass(frozen=True, kw_only=True)
class RandomizedSmoothingBlock(RandomizedSmoothing):
    """Take the majority of `trials` votes with noise of deviation `sigma` on corrupted blocks; nothing is certified.

    Its options are those of `randomized_smoothing`; `alpha` says nothing here.
    """

    told: ClassVar[frozenset[str]] = frozenset({"corrupted"})

    def predict(self, head: nn.Module, query: Query, generator: torch.Generator) -> Prediction:
        """Return the majority's class. Raises ValueError where the query does not say who is corrupted."""
        if query.corrupted is None:
            raise ValueError("randomized_smoothing_block must be told who is corrupted, and the query does not say")
        features, answered = finite_features("randomized_smoothing_block", query)
        return decided(self._votes(head, features, query.corrupted, generator) / self.trials, answered)
