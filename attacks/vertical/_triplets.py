"""The triplet loss on the hardest of a batch: anchors come near those of their class, and away from all others.

Papers: F. Schroff, D. Kalenichenko and J. Philbin, "FaceNet", CVPR 2015; A. Hermans, L. Beyer and B. Leibe, "In Defense
of the Triplet Loss for Person Re-Identification", 2017, for "batch hard"; Lee et al., "Cooperative Decentralized
Backdoor Attacks on Vertical Federated Learning", 2025, Equation 3 and the paragraph that follows.
"""

from __future__ import annotations

import torch
from torch import Tensor


def batch_hard(positives: Tensor, negatives: Tensor, margin: float) -> Tensor:
    """Return max(d^2(a, p) - d^2(a, n) + margin, 0) for each anchor a, (k,).

    positives (k, L): of the target class; each is an anchor once, and p is the farthest of the others. negatives
    (m, L): of other classes; n is the nearest of them. Raises ValueError for fewer than two positives or no negative.
    """
    if len(positives) < 2 or len(negatives) < 1:
        raise ValueError(
            "the triplet loss needs two samples of the target class and one of another: "
            f"{len(positives)} and {len(negatives)}"
        )
    return torch.relu(_squares(positives, positives).amax(dim=1) - _squares(positives, negatives).amin(dim=1) + margin)


def _squares(one: Tensor, other: Tensor) -> Tensor:
    """Return squared distances (k, m)."""
    return (one[:, None, :] - other[None, :, :]).square().sum(dim=2)
