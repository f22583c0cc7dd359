"""What a fusion centre learns from clean embeddings, and what it predicts from those that reach it.

Paper: Liu, Xie, Koyejo, Li, "CoPur: Certifiably Robust Collaborative Inference via Feature Purification", NeurIPS 2022,
Section 2.1 (training on clean embeddings h, the classifier on AE(h)) and Section 2.3 (inference).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thornbed.defenses.autoencoder import Autoencoder
from thornbed.defenses.autoencoder_fit import Fitted, fit_autoencoder
from thornbed.defenses.fusion_head import FittedHead, FusionHead, HeadTraining, fit_head
from thornbed.defenses.inference import InferenceDefense, Query
from thornbed.defenses.purification import Manifold, Purified, block_norms, received
from thornbed.defenses.purification.unsecured import unsecured
from thornbed.defenses.reporting import acted
from thornbed.protocol.randomness import generator
from thornbed.protocol.threads import one_thread

FIRST_DECODED = "autoencoder.decoder.0.weight"  # as many columns as the bottleneck has numbers
HELD_OUT = 0.2  # share of the training rows, the last ones, on which manifolds are weighed
CHEAP = 0.01  # what a manifold may cost of clean accuracy where its size is chosen here
SIZES = (2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300)
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
    bottleneck, hidden, drop, epochs : of `defenses.autoencoder_fit.fit_autoencoder`; without a bottleneck `weigh`
        chooses one.
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

    def fit(self, embeddings: Tensor, source: torch.Generator, size: int) -> tuple[FusionModel, float]:
        """Return the model of clean embeddings (N, M, c) of the training rows, and its classifier's last loss.

        size: of the bottleneck, that of `weigh`. Reports how much of their variance the manifold keeps. Raises
        ValueError for options that cannot be.
        """
        fitted, head = self._fit(embeddings, self.labels, source, self.epochs, self.training, size)
        with torch.no_grad():
            off = block_norms(embeddings - fitted.autoencoder(embeddings)).sum(dim=1).double()
        # delta of Theorem 4, which certificates ask for: what half of the rows stay below, and 95% of them.
        half, most = off.quantile(torch.tensor([0.5, 0.95], dtype=torch.float64)).tolist()
        acted(explained_variance=fitted.explained_variance, delta_median=half, delta_95=most)
        return FusionModel(fitted.autoencoder, head.head), head.losses[-1]

    def weigh(self, embeddings: Tensor, source: torch.Generator) -> int:
        """Return the size of the bottleneck for clean embeddings (N, M, c) of the training rows.

        It is the one that was given, or the smallest of SIZES that costs at most CHEAP of clean accuracy. For that
        manifold and classifier are fitted to the first four fifths of the rows and answer the last fifth, beside a
        classifier of raw embeddings. The extractors have seen all of these rows, so that the cost for others is only
        like it. Reports the size, and the cost as `manifold_cost` where features are on the manifold. Raises ValueError
        where there are too few rows to choose by.
        """
        count, numbers = len(embeddings) - max(1, round(HELD_OUT * len(embeddings))), embeddings[0].numel()
        sizes = (
            (*(size for size in SIZES if size < numbers), numbers) if self.bottleneck is None else (self.bottleneck,)
        )
        if count < 2:
            if self.bottleneck is None:
                raise ValueError(f"{len(embeddings)} training rows are too few to choose a bottleneck by; name one")
            return self.bottleneck
        seen, held = slice(None, count), slice(count, None)

        def right(features: Tensor) -> float:
            """Return the share of held-out rows that a classifier of such features answers rightly."""
            head = fit_head(features[seen], self.labels[seen], self.num_classes, source, self.training).head
            return float((head(features[held]).argmax(dim=1) == self.labels[held]).double().mean())

        with one_thread():
            raw = right(embeddings)
            for size in sizes:
                cost = raw - right(self._manifold(embeddings[seen], source, self.epochs, size).autoencoder(embeddings))
                if cost <= CHEAP:
                    break
        acted(bottleneck=size)
        if self.on_manifold:
            acted(manifold_cost=cost)
        return size

    def blank(self, size: int | None = None) -> FusionModel:
        """Return a model of the same shapes that has learned nothing; raises ValueError for options that cannot be.

        size: of the bottleneck where it is not given but was chosen; before that it is 1.
        """
        rows = max(2, self.num_classes)
        shape = rows, len(self.corrupted), self.embedding_size
        once = HeadTraining(hidden=self.training.hidden, epochs=1)
        source = generator(0, "blank")
        made = torch.randn(shape, generator=source)
        labels = torch.arange(rows) % self.num_classes
        fitted, head = self._fit(made, labels, source, 1, once, self.bottleneck or size or 1)
        return FusionModel(fitted.autoencoder, head.head)

    def load(self, tensors: Mapping[str, Tensor]) -> FusionModel:
        """Return the model of its tensors."""
        model = self.blank(tensors[FIRST_DECODED].shape[1])
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
        self,
        embeddings: Tensor,
        labels: Tensor,
        source: torch.Generator,
        epochs: int,
        training: HeadTraining,
        size: int,
    ) -> tuple[Fitted, FittedHead]:
        with one_thread():
            fitted = self._manifold(embeddings, source, epochs, size)
            features = self._trained_on(fitted.autoencoder, embeddings)
            head = self.defense.fit(features, labels, self.num_classes, source, training)
        return fitted, head

    def _manifold(self, embeddings: Tensor, source: torch.Generator, epochs: int, size: int) -> Fitted:
        return fit_autoencoder(embeddings, source, bottleneck=size, hidden=self.hidden, drop=self.drop, epochs=epochs)

    def _honest(self, autoencoder: Autoencoder, embeddings: Tensor) -> Tensor:
        """Return features of what came without an attack; what did not come is the manifold's mean, as elsewhere."""
        everybody = torch.ones(embeddings.shape[1], dtype=torch.bool)
        filled, usable = received("the oracle", embeddings, everybody, autoencoder)
        return torch.where(usable.any(dim=1)[:, None, None], self._trained_on(autoencoder, filled), torch.nan)

    def _trained_on(self, autoencoder: Autoencoder, embeddings: Tensor) -> Tensor:
        return autoencoder(embeddings) if self.on_manifold else embeddings
