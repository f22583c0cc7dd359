"""How the fusion centre's classifier is trained and how it decides: two verbs, one defense a file.

The class has the name of its file without underscores (`RandomizedSmoothing` in randomized_smoothing.py), is a frozen
dataclass whose fields are its options, and an `InferenceDefense`. What a defense predicts from are features: the
embeddings as they were received (`defenses.purification.unsecured`) for the baselines of the CoPur paper, purified ones
(`defenses.purification.copur`) for smoothing on top of copur.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from thornbed.defenses.fusion_head import FittedHead, HeadTraining

ABSTAINS = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class Query:
    """What the fusion centre predicts from.

    Attributes
    ----------
    features : (n, M, d); a row that is not finite is not answered.
    usable : (n, M) bool, the blocks that came and were finite, see `defenses.purification.Purified`; what stands in
        `features` in place of others was put there by the purification.
    corrupted : (M,) bool, the agents that lie; only for defenses that are told it, which are oracles.
    honest : (n, M, d), what would have been sent without an attack; only for defenses that are told it.
    """

    features: Tensor
    usable: Tensor
    corrupted: Tensor | None = None
    honest: Tensor | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """What comes out for n queries and C classes.

    Attributes
    ----------
    labels : (n,) int64; ABSTAINS where nothing was left to predict from.
    shares : (n, C), of the votes, or probabilities where one network answers; NaN where it abstains.
    radius : (n,), the change of the features, in Euclidean norm, under which the label is certified to stay; None where
        the defense certifies none.
    tolerated : (n,) int64, the number of agents, of those usable in the query, whose features may be anything, or
        missing, without changing the label, as certified; -1 where not even the label without an attack is certain.
        None where the defense certifies none.
    """

    labels: Tensor
    shares: Tensor
    radius: Tensor | None = None
    tolerated: Tensor | None = None


class InferenceDefense(Protocol):
    """What every defense of this folder is, on top of options with defaults, which are checked when it is made."""

    told: ClassVar[frozenset[str]]
    """What of `Query` it must be told though no fusion centre knows it: `corrupted`, `honest`; it is then an oracle."""

    def fit(
        self, features: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator, training: HeadTraining
    ) -> FittedHead:
        """Return a head trained on clean features (N, M, d) with labels (N,)."""

    def predict(self, head: nn.Module, query: Query, generator: torch.Generator) -> Prediction:
        """Return what is predicted by a head of `fit`."""

    def logits(self, head: nn.Module, features: Tensor) -> Tensor:
        """Return the logits (n, C) of a head of `fit` for features (n, M, d) of all agents, differentiable.

        Nothing votes and nothing is random: it is what an attacker differentiates through.
        """


def decided(shares: Tensor, answered: Tensor, **certified: Tensor) -> Prediction:
    """Return the prediction of the largest share (n, C), the first of equal ones, for the rows `answered` (n,) bool.

    Rows whose shares are not finite, or all 0, have no answer either: a network that overflows has said nothing.
    """
    answered = answered & shares.isfinite().all(dim=1) & (shares > 0).any(dim=1)
    labels = torch.where(answered, shares.argmax(dim=1), ABSTAINS)
    return Prediction(labels=labels, shares=torch.where(answered[:, None], shares, torch.nan), **certified)


def finite_features(name: str, query: Query) -> tuple[Tensor, Tensor]:
    """Return the features with zeros in rows that are not finite, and which rows (n,) are.

    Raises ValueError for features that are no (n, M, d), and `usable` that does not fit.
    """
    features, usable = query.features, query.usable
    if features.ndim != 3 or usable.dtype != torch.bool or usable.shape != features.shape[:2]:
        raise ValueError(
            f"{name} needs features (n, M, d) and one bool a block: features are {tuple(features.shape)}, "
            f"usable is {usable.dtype} {tuple(usable.shape)}"
        )
    answered = features.flatten(1).isfinite().all(dim=1)
    return torch.where(answered[:, None, None], features, 0.0), answered
