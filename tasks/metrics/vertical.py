"""How well a backdoor in vertical learning does, and what its controls say; every rate is in [0, 1].

Paper: Lee et al., "Cooperative Decentralized Backdoor Attacks on Vertical Federated Learning", 2025, Section VI-B for
clean data accuracy, attack success rate and the accuracy of label inference, and Section VI-C for the perturbation.
"""

from __future__ import annotations

import torch
from torch import Tensor


def share_taken_for(logits: Tensor, labels: Tensor | int) -> float:
    """Return the share of logits (n, C) whose largest is that of the label, one a row (n,) or the same for all.

    With true labels of untouched samples it is the clean data accuracy; with the target, of samples of other classes,
    it is the attack success rate, or its control. A row with a NaN is taken for nothing. NaN without rows.
    """
    if len(logits) == 0:
        return float("nan")
    return float(((logits.argmax(dim=1) == labels) & ~logits.isnan().any(dim=1)).double().mean())


def rows_to_attack(labels: Tensor, target: int, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` random rows that are not of the target class, or all of them where there are fewer."""
    others = (labels != target).nonzero()[:, 0]
    return others[torch.randperm(len(others), generator=generator)[:count]]


def inferred_rightly(rows: Tensor, labels: Tensor, target: int, told: Tensor) -> tuple[float, int]:
    """Return which share of the rows taken for the target's is so, and how many they are; NaN of none.

    told: rows whose labels the adversaries knew, which do not count.
    """
    guessed = rows[~torch.isin(rows, told)]
    if len(guessed) == 0:
        return float("nan"), 0
    return float((labels[guessed] == target).double().mean()), len(guessed)


def gradient_perturbation(attacked: Tensor, honest: Tensor) -> float:
    """Return |attacked - honest|_2 of two gradients (p,) of the top model.

    The paper does not say where it takes them. Both are taken here at the same weights of all networks and on the same
    batch, once with what the adversaries sent and once with the embeddings of the rows as they are.
    """
    return float(torch.linalg.vector_norm(attacked - honest, dtype=torch.float64))
