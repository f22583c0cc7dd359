"""The fusion centre's classifier of all agents' embeddings, and its training on clean rows.

Paper: Liu, Xie, Koyejo, Li, "CoPur: Certifiably Robust Collaborative Inference via Feature Purification", NeurIPS 2022,
Section 2.1: for purification it is trained on AE(h), so pass those. The loss is the cross-entropy of logits, of as many
outputs as classes, also of two; the authors' code takes a categorical cross-entropy of a single output, which
normalises across the batch. It lies beside the defenses because adversarial training and ablation change how it is
trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thornbed.defenses.layers import leaky_layers

Change = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""`(head, x (b, M, d), y (b,)) -> (b, M, d)`: what a batch is trained on in place of x."""


class FusionHead(nn.Module):
    """Embeddings (n, M, d) to logits (n, C), with leaky ReLU between hidden layers.

    Each agent's embeddings are centred by `mean` (M, d) and divided by `scale` (M,), buffers of the training rows.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, embeddings: Tensor, num_classes: int, generator: torch.Generator, *, hidden: tuple[int, ...] = (32,)
    ) -> None:
        super().__init__()
        mean = embeddings.mean(dim=0)
        scale = (embeddings - mean).square().mean(dim=(0, 2)).sqrt()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", torch.where(scale > 0, scale, torch.ones_like(scale)))
        self.layers = leaky_layers((mean.numel(), *hidden, num_classes), 0.1, generator, mean.dtype)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.layers(((embeddings - self.mean) / self.scale[:, None]).flatten(1))
        return logits


@dataclass(frozen=True, kw_only=True)
class HeadTraining:
    """How a head is trained; Adam, whose rate falls to 0 along a half cosine. Raises ValueError out of range."""

    hidden: tuple[int, ...] = (32,)
    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3

    def __post_init__(self) -> None:
        if min((self.epochs, self.batch_size, *self.hidden)) < 1:
            raise ValueError(
                "a fusion head needs epochs, batch_size and every entry of hidden >= 1: "
                f"epochs = {self.epochs}, batch_size = {self.batch_size}, hidden = {self.hidden}"
            )
        if not 0 < self.learning_rate < math.inf or not 0 <= self.weight_decay < math.inf:
            raise ValueError(
                "a fusion head needs a finite learning_rate > 0 and weight_decay >= 0: "
                f"learning_rate = {self.learning_rate}, weight_decay = {self.weight_decay}"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedHead:
    """A head in evaluation mode, without gradients of its parameters, and its mean loss in each epoch."""

    head: FusionHead
    losses: list[float]


def fit_head(
    embeddings: Tensor,
    labels: Tensor,
    num_classes: int,
    generator: torch.Generator,
    training: HeadTraining,
    change: Change | None = None,
) -> FittedHead:
    """Return a head trained on clean embeddings (N, M, d), finite, with labels (N,) int64 in [0, num_classes).

    `change` makes of each batch what is trained on. Raises ValueError for shapes and values that do not fit.
    """
    if embeddings.ndim != 3 or labels.shape != embeddings.shape[:1] or len(labels) == 0:
        raise ValueError(
            "a fusion head needs embeddings (N, M, d) and one label a row: "
            f"{tuple(embeddings.shape)} and {tuple(labels.shape)}"
        )
    if not bool(embeddings.isfinite().all()):
        bad = int((~embeddings.flatten(1).isfinite().all(dim=1)).sum())
        raise ValueError(f"a fusion head needs finite embeddings: {bad} of {len(embeddings)} rows are not")
    if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise ValueError(
            f"a fusion head of {num_classes} classes needs labels below that: they go from {int(labels.min())} to "
            f"{int(labels.max())}"
        )
    head = FusionHead(embeddings, num_classes, generator, hidden=training.hidden)
    rate = training.learning_rate
    optimizer = torch.optim.Adam(head.parameters(), lr=rate, weight_decay=training.weight_decay)
    losses = []
    for epoch in range(training.epochs):
        optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * epoch / training.epochs)) / 2
        total = 0.0
        for batch in torch.randperm(len(labels), generator=generator).split(training.batch_size):
            rows = batch.to(embeddings.device)
            x, y = embeddings[rows], labels[rows]
            loss = F.cross_entropy(head(x if change is None else change(head, x, y)), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(batch)
        losses.append(total / len(labels))
    return FittedHead(head=head.eval().requires_grad_(False), losses=losses)
