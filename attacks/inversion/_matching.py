"""Which images of two epochs are the same ones.

Paper: Xu, Hong, Huang, Chen, Decouchant, "AGIC", SRDS 2022, Section IV-B, Step 1: images reconstructed from the updates
of each epoch alone are pooled, compared, and paired greedily; only pairs of updates whose inferred labels have one in
common come into question.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from thornbed.attacks.inversion import Reconstruction

Place = tuple[int, int]
"""An image of an epoch: which update, and which of its images."""


def match_greedily(distances: Tensor, allowed: Tensor) -> list[tuple[int, int]]:
    """Return pairs (row, column) of (n, m), nearest first, each row and column at most once, only where allowed.

    Among equal distances the first in order of rows, then columns, comes first. Pairs whose distance is not finite
    come last.
    """
    n, m = distances.shape
    order = torch.where(distances.isfinite(), distances, torch.inf).flatten().argsort(stable=True)
    rows_left, columns_left = [True] * n, [True] * m
    pairs = []
    for place in order.tolist():
        row, column = divmod(place, m)
        if rows_left[row] and columns_left[column] and bool(allowed[row, column]):
            rows_left[row] = columns_left[column] = False
            pairs.append((row, column))
    return pairs


def pooled_distances(first: Tensor, second: Tensor, pooling: int) -> Tensor:
    """Return the mean squared errors (n, m) between images (n, C, H, W) and (m, C, H, W), averaged in squares first.

    The squares have `pooling` pixels a side and lie beside each other; 1 compares the images as they are.
    """
    a, b = (F.avg_pool2d(images, pooling).flatten(1).to(torch.float64) for images in (first, second))
    # exact differences: the expanded form would lose what tells similar images apart
    return torch.stack([(b - row).square().mean(dim=1) for row in a])


def match_epochs(
    first: Sequence[Reconstruction], second: Sequence[Reconstruction], *, pooling: int, label_filter: bool
) -> list[tuple[Place, Place]]:
    """Return which image of an update of the first epoch is which of an update of the second."""
    a, b = (_places(epoch) for epoch in (first, second))
    images = [torch.cat([update.images for update in epoch]) for epoch in (first, second)]
    distances = pooled_distances(images[0], images[1], pooling)
    allowed = torch.ones(len(a), len(b), dtype=torch.bool)
    if label_filter:
        sets = [[set(update.labels.tolist()) for update in epoch] for epoch in (first, second)]
        allowed = torch.tensor([[bool(sets[0][u] & sets[1][v]) for v, _ in b] for u, _ in a])
    return [(a[row], b[column]) for row, column in match_greedily(distances, allowed)]


def chains(epochs: Sequence[Sequence[Reconstruction]], *, pooling: int, label_filter: bool) -> list[list[Place | None]]:
    """Return the samples, each as its image in every epoch, None where it has none; epoch after epoch is matched.

    Every image of every epoch is in exactly one of them.
    """
    found: list[list[Place | None]] = [[place] for place in _places(epochs[0])]
    for number, (before, after) in enumerate(pairwise(epochs), start=1):
        partners = dict(match_epochs(before, after, pooling=pooling, label_filter=label_filter))
        for chain in found:
            here = chain[-1]
            chain.append(None if here is None else partners.get(here))
        taken = {chain[-1] for chain in found}
        found += [[None] * number + [place] for place in _places(after) if place not in taken]
    return found


def _places(epoch: Sequence[Reconstruction]) -> list[Place]:
    return [(update, image) for update, found in enumerate(epoch) for image in range(len(found.images))]
