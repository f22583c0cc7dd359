"""Which rows are of the target class, from features alone; and new features like theirs.

Paper: Lee et al., "Cooperative Decentralized Backdoor Attacks on Vertical Federated Learning", 2025, Algorithm 1. The
autoencoder learns from the known samples of the target class (Equation 4); the other known ones are the negatives of
its triplet loss. A classifier on mu learns from all that are known, and is believed where it is sure. What it names is
what a second autoencoder, of the adversary's own features alone, learns from to make new ones (line 8).

Not in the paper, and ours: the weights lambda and lambda^, the widths, learning rates and numbers of epochs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thornbed.attacks.vertical._triplets import batch_hard
from thornbed.attacks.vertical._vae import Layers, Vae


@dataclass(frozen=True, kw_only=True)
class LabelInference:
    """How an adversary infers and generates; raises ValueError, with the name of the attack, out of range.

    `margin` and `triplet_weight` (lambda^) of the triplet loss, which 0 leaves out; `rebuilding` (lambda) in (0, 1).
    `confidence` (beta): the least probability at which the classifier is believed. `epochs`: passes over the known
    samples of the target class; the classifier takes as many over all known ones. `steps`: of the second autoencoder.
    """

    attack: str
    layers: Layers
    latent: int
    hidden: int
    margin: float
    triplet_weight: float
    rebuilding: float
    confidence: float
    epochs: int
    steps: int
    learning_rate: float
    batch_size: int = 32

    def __post_init__(self) -> None:
        for option in ("margin", "triplet_weight"):
            if not 0 <= getattr(self, option) < math.inf:
                raise ValueError(f"{self.attack} needs a finite {option} >= 0: {option} = {getattr(self, option)}")
        for option in ("rebuilding", "confidence"):
            if not 0 < getattr(self, option) < 1:
                raise ValueError(f"{self.attack} needs 0 < {option} < 1: {option} = {getattr(self, option)}")
        for option in ("latent", "hidden", "epochs", "steps"):
            if getattr(self, option) < 1:
                raise ValueError(f"{self.attack} needs {option} >= 1: {option} = {getattr(self, option)}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"{self.attack} needs a finite learning_rate > 0: learning_rate = {self.learning_rate}")

    def rows(
        self, features: Tensor, known: Tensor, labels: Tensor, target: int, num_classes: int, generator: torch.Generator
    ) -> Tensor:
        """Return the rows of features (N, *shape) taken for the target's, ascending; those known to be so among them.

        known (k,) rows have labels (k,). Raises ValueError unless two of them are of the target class, and one is not.
        """
        own, others = features[known[labels == target]], features[known[labels != target]]
        vae = self._autoencoder(features, generator)
        with _weights_of(generator):
            classifier = nn.Sequential(
                nn.Linear(self.latent, self.hidden), nn.ReLU(), nn.Linear(self.hidden, num_classes)
            ).to(features)
        self._fit(vae, own, others, generator)
        with torch.no_grad():
            mu = torch.cat([vae.encode(part)[0] for part in features.split(4096)])
        self._classify(classifier, mu[known], labels, generator)
        with torch.no_grad():
            sure, likely = classifier(mu).softmax(dim=1).max(dim=1)
        taken = (likely == target) & (sure >= self.confidence)
        taken[known] = labels == target
        return taken.nonzero()[:, 0]

    def generated(self, features: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Return `count` new features (count, *shape), decoded from N(0, I), like the given ones (n, *shape)."""
        vae = self._autoencoder(features, generator)
        optimizer = torch.optim.Adam(vae.parameters(), lr=self.learning_rate)
        for _ in range(self.steps):
            rows = torch.randint(len(features), (4 * self.batch_size,), generator=generator)
            x = features[rows]
            loss = vae.loss(x, *vae.encode(x), self.rebuilding, generator).mean()
            _step(optimizer, loss)
        with torch.no_grad():
            return vae.decode(torch.randn(count, self.latent, generator=generator).to(features))

    def _autoencoder(self, features: Tensor, generator: torch.Generator) -> Vae:
        bounded = bool(features.min() >= 0) and bool(features.max() <= 1)
        with _weights_of(generator):
            return Vae(
                tuple(features.shape[1:]), self.latent, layers=self.layers, hidden=self.hidden, bounded=bounded
            ).to(features)

    def _fit(self, vae: Vae, own: Tensor, others: Tensor, generator: torch.Generator) -> None:
        if len(own) < 2 or len(others) < 1:
            raise ValueError(
                f"{self.attack} needs two known labels of the target class and one of another: it knows {len(own)} "
                f"and {len(others)}"
            )
        optimizer = torch.optim.Adam(vae.parameters(), lr=self.learning_rate)
        for _ in range(self.epochs):
            for rows in _batches(len(own), self.batch_size, generator):
                mu, log_variance = vae.encode(own[rows])
                loss = vae.loss(own[rows], mu, log_variance, self.rebuilding, generator).mean()
                if self.triplet_weight:
                    triplets = batch_hard(mu, vae.encode(others)[0], self.margin)
                    loss = loss + self.triplet_weight * triplets.mean()
                _step(optimizer, loss)

    def _classify(self, classifier: nn.Module, mu: Tensor, labels: Tensor, generator: torch.Generator) -> None:
        optimizer = torch.optim.Adam(classifier.parameters(), lr=self.learning_rate)
        for _ in range(self.epochs):
            for rows in _batches(len(mu), 2 * self.batch_size, generator):
                _step(optimizer, F.cross_entropy(classifier(mu[rows]), labels[rows]))


def _batches(count: int, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Return the rows of a pass in a new order, in batches of about `size`, none with a single one."""
    return torch.randperm(count, generator=generator).tensor_split(max(1, count // size))


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


@contextmanager
def _weights_of(generator: torch.Generator) -> Iterator[None]:
    """Let layers start from a seed of this generator, and put torch's own back as it was."""
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
