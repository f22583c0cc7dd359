"""Gradient descent on what corrupted agents send, and whom it is to be taken for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from thornbed.attacks.inference import QuerySight, SentEmbeddings, corrupted


def pgd(
    name: str,
    sent: SentEmbeddings,
    agents: Sequence[int],
    sight: QuerySight,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    steps: int,
    step_size: float,
) -> SentEmbeddings:
    """Return what is sent after `steps` plain steps against the gradient of loss(logits (n, C), labels (n,)) -> (n,).

    The loss is summed over the queries, so each goes its own way. There is no projection: embeddings have no bound.
    Raises ValueError for options out of range, where sight has no labels or no network, and as
    `attacks.inference.corrupted` does.
    """
    mask = corrupted(name, sent, agents)
    check_steps(name, steps, step_size)
    labels, network = known_labels(name, sent, sight), sight.network
    if network is None:
        raise ValueError(f"{name} must know the fusion centre's model, and sight has none")
    own = sent.embeddings[:, mask].detach().clone()
    for _ in range(steps):
        own.requires_grad_()
        total = loss(network(with_own(sent, mask, own), sent.observed), labels).sum()
        own = (own - step_size * torch.autograd.grad(total, own)[0]).detach()
    return replace(sent, embeddings=with_own(sent, mask, own))


def with_own(sent: SentEmbeddings, mask: Tensor, own: Tensor) -> Tensor:
    """Return the embeddings (n, M, d) with those of the agents in the mask (M,) replaced by own (n, a, d)."""
    embeddings = sent.embeddings.clone()
    embeddings[:, mask] = own
    return embeddings


def targets_of(name: str, labels: Tensor, classes: int, target: int | None) -> Tensor:
    """Return whom each query (n,) is to be taken for: the class `target`, or where None the one after its own.

    Of two classes that is the other one, as in the CoPur paper. Raises ValueError for a target that is no class.
    """
    if target is None:
        return (labels + 1) % classes
    if not 0 <= target < classes:
        raise ValueError(f"{name} needs a target from 0 to {classes - 1}: target = {target}")
    return torch.full_like(labels, target)


def toward(name: str, target: int | None) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss of a targeted attack: the cross-entropy with its target, on logits."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets_of(name, labels, logits.shape[1], target), reduction="none")

    return loss


def away(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of an untargeted attack: less the cross-entropy with the true labels, on logits."""
    return -F.cross_entropy(logits, labels, reduction="none")


def known_labels(name: str, sent: SentEmbeddings, sight: QuerySight) -> Tensor:
    """Return the true labels (n,) that sight has; raises ValueError where it has none, or another number of them."""
    if sight.labels is None:
        raise ValueError(f"{name} must know the true labels, and sight has none")
    if len(sight.labels) != len(sent.embeddings):
        raise ValueError(f"{name} needs one label a query: {len(sent.embeddings)} queries, {len(sight.labels)} labels")
    return sight.labels


def check_steps(name: str, steps: int, step_size: float) -> None:
    """Raise ValueError unless steps >= 1 and step_size is finite and above 0."""
    if steps < 1:
        raise ValueError(f"{name} needs steps >= 1: steps = {steps}")
    if not 0 < step_size < math.inf:
        raise ValueError(f"{name} needs a finite step_size > 0: step_size = {step_size}")
