"""Take the median of each coordinate.

Paper: Yin, Chen, Ramchandran and Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates",
ICML 2018, Definition 1.
"""

from __future__ import annotations

from torch import Tensor

from thornbed.defenses.order_statistics import kept_mean
from thornbed.defenses.reporting import acted
from thornbed.defenses.update_matrix import like, update_matrix


def median(updates: Tensor, weights: Tensor) -> Tensor:
    """Return the coordinate-wise median; for an even number of clients the mean of the two middle values.

    updates: (n, d) floats, finite. weights are ignored: they are claims, and the median counts every client once.

    Reports `trimmed_per_tail`, the number of clients on either side of the middle. A tensor on a GPU is copied to the
    CPU and the result back.
    """
    matrix = update_matrix("median", updates, weights)
    tail = (matrix.shape[0] - 1) // 2
    values, _ = kept_mean(matrix, tail)
    acted(trimmed_per_tail=tail)
    return like(updates, values)
