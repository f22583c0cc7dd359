"""Let many noisy copies of the features vote, which certifies the label against small changes of all of them.

Paper: J. Cohen, E. Rosenfeld, Z. Kolter, "Certified Adversarial Robustness via Randomized Smoothing", ICML 2019,
Theorem 1; as a baseline, and on purified features, in Liu, Xie, Koyejo, Li, "CoPur", NeurIPS 2022, Sections 3.2 and
5.1. On received embeddings it is the baseline: a corrupted agent goes as far as it likes, so its radius says little. On
features of copur it certifies the whole: where `defenses.leverage.Certificate.radius` is not above the radius here, the
label is that of the true features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thornbed.defenses.fusion_head import FittedHead, HeadTraining, fit_head
from thornbed.defenses.inference import Prediction, Query, decided, finite_features
from thornbed.defenses.inference._votes import check_votes, chunks, count_votes, lower_bounds
from thornbed.defenses.inference.plain import Plain


@dataclass(frozen=True, kw_only=True)
class RandomizedSmoothing(Plain):
    """Take the majority of `trials` votes on features with Gaussian noise of deviation `sigma`, in their units.

    With `noisy_training` the head is trained on such noise too, as Cohen et al. do: a head that has only seen a thin
    manifold may say anything beside it. The CoPur paper smooths a head as it is. The radius holds with confidence
    1 - alpha. Raises ValueError for options out of range.
    """

    sigma: float = 0.5
    trials: int = 1000
    alpha: float = 0.001
    noisy_training: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise ValueError(f"randomized_smoothing needs a finite sigma > 0: sigma = {self.sigma}")
        check_votes("randomized_smoothing", self.trials, self.alpha)

    def fit(
        self, features: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator, training: HeadTraining
    ) -> FittedHead:
        """Return a head trained on clean features (N, M, d) with labels (N,), each batch with noise drawn anew."""

        def change(head: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            return x + self.sigma * noise.to(x.device)

        return fit_head(features, labels, num_classes, generator, training, change if self.noisy_training else None)

    def predict(self, head: nn.Module, query: Query, generator: torch.Generator) -> Prediction:
        """Return the majority's class with its certified radius: sigma times the normal quantile of its probability."""
        features, answered = finite_features("randomized_smoothing", query)
        votes = self._votes(head, features, torch.ones(features.shape[1], dtype=torch.bool), generator)
        probability = lower_bounds(votes, self.trials, self.alpha)
        radius = self.sigma * torch.special.ndtri(probability).clamp_min(0)
        return decided(votes / self.trials, answered, radius=torch.where(answered, radius, 0.0))

    def _votes(self, head: nn.Module, features: Tensor, noisy: Tensor, generator: torch.Generator) -> Tensor:
        """Return the votes (n, C) with noise on the agents `noisy` (M,)."""

        def make(copies: int) -> Tensor:
            noise = torch.randn((copies, *features.shape), generator=generator, dtype=features.dtype)
            return features + self.sigma * noise.to(features.device) * noisy.to(features.device)[:, None]

        return count_votes(head, chunks(self.trials, make))
