"""Keep a coordinate only where the mean is large beside the variance over clients, and take the trimmed mean there.

Paper: Wang, Dimitriadis, Koyejo and Tople, "Invariant Aggregator for Defending against Federated Backdoor Attacks",
AISTATS 2024, Appendix D.4, Table 4, the ablation that puts the sample mean-variance ratio in the place of the sign
consistency. The paper prints neither a formula nor a threshold. Here the ratio is mean^2 / variance, with the sample
variance (divided by n - 1), because that has no unit: |mean| / variance would mask everything or nothing by the choice
of the learning rate. Where updates are normal, a sign consistency of 0.2, the tau of `invariant`, is expected where
|mean| / deviation is 0.2533, the 60% point of the normal distribution; its square is the default, 0.064.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from thornbed.defenses.order_statistics import kept_mean, tail_size
from thornbed.defenses.reporting import acted
from thornbed.defenses.update_matrix import Floats, like, over_columns, update_matrix

_BLOCK = 1024  # columns read together: 8 KB of float64, which stays in the first cache


def mean_variance_ratio(updates: Tensor, weights: Tensor, *, threshold: float = 0.064, alpha: float = 0.25) -> Tensor:
    """Return the trimmed mean where mean^2 / variance is above the threshold, and 0 elsewhere.

    updates: (n, d) floats, finite. weights are ignored: they are claims, and every client counts once. Mean and
    variance are those of all n values of the coordinate, in float64, before anything is trimmed; so a single outlier
    can mask a coordinate (its ratio becomes 1/n), but cannot lead it away. threshold >= 0, strictly above; where all
    agree exactly on a value other than 0 the ratio is infinite. alpha in [0, 0.5): ceil(alpha * n) values are removed
    from each tail.

    Reports `masked_share` (share of coordinates set to 0) and `trimmed_per_tail` (clients). A tensor on a GPU is
    copied to the CPU and the result back.

    Raises ValueError when n < 2, threshold or alpha is out of range, or trimming would leave nothing.
    """
    matrix = update_matrix("mean_variance_ratio", updates, weights)
    n, d = matrix.shape
    if n < 2:
        raise ValueError(f"mean_variance_ratio needs n >= 2 for a sample variance: n = {n}, d = {d}")
    if not 0 <= threshold < float("inf"):
        raise ValueError(f"mean_variance_ratio needs a finite threshold >= 0: n = {n}, threshold = {threshold}")
    tail = tail_size("mean_variance_ratio", alpha, n)
    masked = np.empty(d, np.bool_)

    def work(flat: Floats, stride: int, columns: slice) -> None:
        _mask(flat, stride, n, threshold, masked[columns])

    over_columns(matrix, work)
    values, _ = kept_mean(matrix, tail)
    values[masked] = 0.0
    acted(masked_share=float(masked.mean()), trimmed_per_tail=tail)
    return like(updates, values)


@njit(nogil=True, cache=True)
def _mask(flat: Floats, stride: int, n: int, threshold: float, masked: NDArray[np.bool_]) -> None:
    mean = np.empty(_BLOCK, np.float64)
    squares = np.empty(_BLOCK, np.float64)
    for start in range(0, masked.size, _BLOCK):
        size = min(_BLOCK, masked.size - start)
        mean[:] = 0.0
        squares[:] = 0.0
        for i in range(n):
            source = flat[i * stride + start : i * stride + start + size]
            for k in range(size):
                mean[k] += source[k]
        for k in range(size):
            mean[k] /= n
        for i in range(n):  # deviations from the mean: the mean of squares minus the squared mean would cancel
            source = flat[i * stride + start : i * stride + start + size]
            for k in range(size):
                deviation = source[k] - mean[k]
                squares[k] += deviation * deviation
        for k in range(size):
            masked[start + k] = not mean[k] * mean[k] * (n - 1) > threshold * squares[k]
