"""The weighted mean of chosen client updates, summed in float64 and rounded once."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from defenses.update_matrix import Floats, over_columns

_BLOCK = 1024  # columns summed together: 8 KB of float64, which stays in the first cache


def weighted_mean(matrix: Floats, rows: NDArray[np.int64], weights: NDArray[np.float64]) -> Floats:
    """Return sum(weights[j] * matrix[rows[j]]) / sum(weights) as float32 (d,); rows not named are never read.

    Dividing by the sum takes out the rounding of float32 weights, so equal rows give exactly that row.
    """
    total = float(weights.sum())
    mean = np.empty(matrix.shape[1], np.float32)

    def work(flat: Floats, stride: int, columns: slice) -> None:
        _weighted_mean(flat, stride, rows, weights, total, mean[columns])

    over_columns(matrix, work)
    return mean


@njit(nogil=True, cache=True)
def _weighted_mean(
    flat: Floats,
    stride: int,
    rows: NDArray[np.int64],
    weights: NDArray[np.float64],
    total: float,
    mean: Floats,
) -> None:
    width = mean.size
    sums = np.empty(_BLOCK, np.float64)
    for start in range(0, width, _BLOCK):
        size = min(_BLOCK, width - start)
        sums[:] = 0.0
        for j in range(rows.size):
            first = rows[j] * stride + start
            source = flat[first : first + size]
            weight = weights[j]
            for k in range(size):
                sums[k] += weight * source[k]
        out = mean[start : start + size]
        for k in range(size):
            out[k] = sums[k] / total
