"""Average each coordinate without its largest and smallest values.

Paper: Yin, Chen, Ramchandran and Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates",
ICML 2018, Definition 2; the number removed is that of Wang et al., AISTATS 2024, Definition 9.
"""

from __future__ import annotations

from torch import Tensor

from thornbed.defenses.order_statistics import kept_mean, tail_size
from thornbed.defenses.reporting import acted
from thornbed.defenses.update_matrix import like, update_matrix


def trimmed_mean(updates: Tensor, weights: Tensor, *, alpha: float = 0.25) -> Tensor:
    """Return the mean of what is left in each coordinate when ceil(alpha * n) values of each tail are removed.

    updates: (n, d) floats, finite. weights are ignored: they are claims, and order statistics count every client
    once. alpha in [0, 0.5). Values removed are never added, so not even an outlier of 1e30 costs precision.

    Reports `trimmed_per_tail`, the number of clients removed from each tail. A tensor on a GPU is copied to the CPU
    and the result back.

    Raises ValueError when alpha is out of range or nothing would be left.
    """
    matrix = update_matrix("trimmed_mean", updates, weights)
    tail = tail_size("trimmed_mean", alpha, matrix.shape[0])
    values, _ = kept_mean(matrix, tail)
    acted(trimmed_per_tail=tail)
    return like(updates, values)
