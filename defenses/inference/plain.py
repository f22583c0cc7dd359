"""One answer of the network as it was trained.

Source: the inference of Liu, Xie, Koyejo, Li, "CoPur", NeurIPS 2022, Section 2.3, which feeds it purified features; on
unsecured ones it is their baseline "Unsecured".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from thornbed.defenses.fusion_head import FittedHead, HeadTraining, fit_head
from thornbed.defenses.inference import Prediction, Query, decided, finite_features


@dataclass(frozen=True, kw_only=True)
class Plain:
    """Train on the features as they are and take the largest logit."""

    told: ClassVar[frozenset[str]] = frozenset()

    def fit(
        self, features: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator, training: HeadTraining
    ) -> FittedHead:
        """Return a head trained on clean features (N, M, d) with labels (N,)."""
        return fit_head(features, labels, num_classes, generator, training)

    def predict(self, head: nn.Module, query: Query, generator: torch.Generator) -> Prediction:
        """Return the largest softmax probability's class; the generator is not used."""
        features, answered = finite_features("plain", query)
        with torch.no_grad():
            return decided(head(features).softmax(dim=1), answered)

    def logits(self, head: nn.Module, features: Tensor) -> Tensor:
        """Return the head's logits."""
        logits: Tensor = head(features)
        return logits
