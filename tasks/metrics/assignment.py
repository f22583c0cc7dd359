"""Which reconstruction is which original, and how often images of two epochs were rightly taken for the same.

A gradient says nothing of the order of the samples it is the mean of, so reconstructions are put beside the originals
by the assignment with the smallest total squared error: H. W. Kuhn, "The Hungarian Method for the Assignment Problem",
Naval Research Logistics Quarterly 1955. This is for scoring; an attack has no originals to compare with.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def assign(reconstructed: Tensor, originals: Tensor) -> Tensor:
    """Return for each original (n, C, H, W) the row of its reconstruction, (n,) int64: `reconstructed[assign(...)]`.

    No row occurs twice, and the sum of the mean squared errors is the smallest there is; both are clipped to [0, 1]
    first. Raises ValueError for images of different or other shapes, and where some are not finite.
    """
    if reconstructed.shape != originals.shape or reconstructed.ndim != 4:
        raise ValueError(
            f"assign compares images (n, C, H, W) of one shape: they have {tuple(reconstructed.shape)} and "
            f"{tuple(originals.shape)}"
        )
    a, b = (images.detach().to("cpu", torch.float64).clamp(0, 1).flatten(1) for images in (reconstructed, originals))
    errors = torch.stack([(a - original).square().mean(dim=1) for original in b])
    if not bool(errors.isfinite().all()):
        raise ValueError("assign needs finite images: some values are not")
    _, columns = linear_sum_assignment(errors.numpy())
    return torch.from_numpy(columns).to(torch.int64)


def matching_success_rate(
    pairs: Iterable[tuple[int, int]], first: Sequence[Hashable], second: Sequence[Hashable]
) -> float:
    """Return the share, in [0, 1], of the images of the first epoch that were paired with themselves in the second.

    `pairs` are (row of first, row of second); `first` and `second` say which sample each row really is. Images that are
    in no pair count as failures. Raises ValueError for an epoch without images.
    """
    if not first:
        raise ValueError("the matching success rate needs at least one image: there are 0")
    return sum(first[row] == second[column] for row, column in pairs) / len(first)
