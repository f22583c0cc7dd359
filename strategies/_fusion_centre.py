"""What a fusion centre learns from clean embeddings, and what it predicts from those that reach it.

Paper: Liu, Xie, Koyejo, Li, "CoPur: Certifiably Robust Collaborative Inference via Feature Purification", NeurIPS 2022,
Section 2.1 (training on clean embeddings h, the classifier on AE(h)) and Section 2.3 (inference).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thornbed.defenses.autoencoder import Autoencoder, numbers_for
from thornbed.defenses.autoencoder_fit import Fitted, fit_autoencoder
from thornbed.defenses.fusion_head import FittedHead, FusionHead, HeadTraining, fit_head
from thornbed.defenses.inference import InferenceDefense, Query
from thornbed.defenses.purification import Manifold, Purified, block_norms, received
from thornbed.defenses.purification.unsecured import unsecured
from thornbed.defenses.reporting import acted
from thornbed.protocol.randomness import generator
from thornbed.protocol.threads import one_thread

HELD_OUT = 0.2  # share of the training rows, the last ones, on which the manifold is weighed
Purification = Callable[[Tensor, Tensor, Manifold], Purified]


class FusionModel(nn.Module):
    """What was learned: the manifold of clean embeddings, and the classifier."""

    def __init__(self, autoencoder: Autoencoder, head: FusionHead) -> None:
        super().__init__()
        self.autoencoder, self.head = autoencoder, head


@dataclass(frozen=True, eq=False)
class Answers:
    """What is predicted for n queries, in [0, C) or `defenses.inference.ABSTAINS`, and `moved` (n, M) of `Purified`.

    gap, clipped : (n,), of `Purified`, too, clipped as a number of blocks.
    radius, tolerated : (n,), what the defense certifies of each label, as `defenses.inference.Prediction` has them;
        `tolerated` counts clients, and is left out where a purification mixes their blocks, since a liar then reaches
        more than its own.
    """

    labels: Tensor
    moved: Tensor
    gap: Tensor
    clipped: Tensor
    radius: Tensor | None = None
    tolerated: Tensor | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class FusionCentre:
    """M clients' embeddings of c numbers each, C classes, and how they are purified and classified.

    Attributes
    ----------
    labels : (N,) int64, of the training rows.
    corrupted : (M,) bool, who lies; given to defenses that are told it, which are oracles, and to no other.
    on_manifold : what the purification's module says of its features.
    bottleneck, hidden, drop, epochs : of `defenses.autoencoder_fit.fit_autoencoder`; without a bottleneck it has the
        size of `defenses.autoencoder.numbers_for`.
    """

    labels: Tensor
    num_classes: int
    embedding_size: int
    corrupted: Tensor
    purify: Purification
    on_manifold: bool
    defense: InferenceDefense
    training: HeadTraining
    bottleneck: int | None
    hidden: tuple[int, ...]
    drop: float
    epochs: int

    def fit(self, embeddings: Tensor, source: torch.Generator) -> tuple[FusionModel, float]:
        """Return the model of clean embeddings (N, M, c) of the training rows, and its classifier's last loss.

        Reports how much of their variance the manifold keeps. Raises ValueError for options that cannot be.
        """
        fitted, head = self._fit(embeddings, self.labels, source, self.epochs, self.training)
        with torch.no_grad():
            off = block_norms(embeddings - fitted.autoencoder(embeddings)).sum(dim=1).double()
        # delta of Theorem 4, which certificates ask for: what half of the rows stay below, and 95% of them.
        half, most = off.quantile(torch.tensor([0.5, 0.95], dtype=torch.float64)).tolist()
        acted(explained_variance=fitted.explained_variance, delta_median=half, delta_95=most)
        return FusionModel(fitted.autoencoder, head.head), head.losses[-1]

    def weigh(self, embeddings: Tensor, source: torch.Generator) -> None:
        """Report the size of the bottleneck, and what the manifold costs of clean accuracy: `manifold_cost`, a share.

        Manifold and head are fitted to the first four fifths of the training rows and answer the last fifth, beside a
        head on raw embeddings. Extractors have seen all of these rows, so that the cost for unseen ones is only like
        it. Nothing is reported where features are not on the manifold, or rows are too few.
        """
        count = len(embeddings) - round(HELD_OUT * len(embeddings))
        if not self.on_manifold or not 2 <= count < len(embeddings):
            return
        seen, held = slice(None, count), slice(count, None)
        with one_thread():
            autoencoder = self._manifold(embeddings[seen], source, self.epochs).autoencoder
            right = []
            for features in (embeddings, autoencoder(embeddings)):
                head = fit_head(features[seen], self.labels[seen], self.num_classes, source, self.training).head
                right.append(float((head(features[held]).argmax(dim=1) == self.labels[held]).double().mean()))
        acted(bottleneck=self._size(embeddings), manifold_cost=right[0] - right[1])

    def blank(self) -> FusionModel:
        """Return a model of the same shapes that has learned nothing; raises ValueError for options that cannot be."""
        rows = max(2, self.num_classes)
        shape = rows, len(self.corrupted), self.embedding_size
        once = HeadTraining(hidden=self.training.hidden, epochs=1)
        source = generator(0, "blank")
        made = torch.randn(shape, generator=source)
        fitted, head = self._fit(made, torch.arange(rows) % self.num_classes, source, 1, once)
        return FusionModel(fitted.autoencoder, head.head)

    def load(self, tensors: Mapping[str, Tensor]) -> FusionModel:
        """Return the model of its tensors."""
        model = self.blank()
        model.load_state_dict(dict(tensors))
        return model

    def answer(
        self, model: FusionModel, embeddings: Tensor, observed: Tensor, honest: Tensor | None, source: torch.Generator
    ) -> Answers:
        """Return what is predicted for embeddings (n, M, c) of the clients observed (M,) bool.

        honest: (n, M, c), what would come without an attack, for a defense that is told it. Raises ValueError as the
        defenses do.
        """
        with one_thread():
            found = self.purify(embeddings, observed, model.autoencoder)
            told = self.defense.told
            query = Query(
                features=found.features,
                usable=found.usable,
                corrupted=self.corrupted if "corrupted" in told else None,
                honest=self._honest(model.autoencoder, honest) if honest is not None and "honest" in told else None,
            )
            said = self.defense.predict(model.head, query, source)
            tolerated = None if self.on_manifold else said.tolerated
            return Answers(said.labels, found.moved, found.gap, found.clipped.sum(dim=1), said.radius, tolerated)

    def undefended(self, model: FusionModel, embeddings: Tensor, observed: Tensor) -> Tensor:
        """Return logits (n, C) of the embeddings as they came, differentiable."""
        return self.defense.logits(model.head, unsecured(embeddings, observed, model.autoencoder).features)

    def defended(self, model: FusionModel, embeddings: Tensor, observed: Tensor) -> Tensor:
        """Return logits (n, C) of the purified embeddings, differentiable."""
        return self.defense.logits(model.head, self.purify(embeddings, observed, model.autoencoder).features)

    def _fit(
        self, embeddings: Tensor, labels: Tensor, source: torch.Generator, epochs: int, training: HeadTraining
    ) -> tuple[Fitted, FittedHead]:
        with one_thread():
            fitted = self._manifold(embeddings, source, epochs)
            features = self._trained_on(fitted.autoencoder, embeddings)
            head = self.defense.fit(features, labels, self.num_classes, source, training)
        return fitted, head

    def _manifold(self, embeddings: Tensor, source: torch.Generator, epochs: int) -> Fitted:
        size = self._size(embeddings)
        return fit_autoencoder(embeddings, source, bottleneck=size, hidden=self.hidden, drop=self.drop, epochs=epochs)

    def _size(self, embeddings: Tensor) -> int:
        return self.bottleneck or numbers_for(self.num_classes, embeddings[0].numel())

    def _honest(self, autoencoder: Autoencoder, embeddings: Tensor) -> Tensor:
        """Return features of what came without an attack; what did not come is the manifold's mean, as elsewhere."""
        everybody = torch.ones(embeddings.shape[1], dtype=torch.bool)
        filled, usable = received("the oracle", embeddings, everybody, autoencoder)
        return torch.where(usable.any(dim=1)[:, None, None], self._trained_on(autoencoder, filled), torch.nan)

    def _trained_on(self, autoencoder: Autoencoder, embeddings: Tensor) -> Tensor:
        return autoencoder(embeddings) if self.on_manifold else embeddings
