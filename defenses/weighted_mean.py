"""The weighted mean of client updates, summed in float64 and rounded once, and the weights that clients claim."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from thornbed.defenses.update_matrix import Floats, over_columns

_BLOCK = 1024  # columns summed together: 8 KB of float64, which stays in the first cache


def claimed_shares(rule: str, weights: Tensor) -> NDArray[np.float64]:
    """Return the weights (n,) as float64.

    Raises ValueError when a weight is negative or the sum is more than 0.001 away from 1.
    """
    shares: NDArray[np.float64] = weights.detach().cpu().double().numpy()
    if not (shares.min() >= 0 and abs(shares.sum() - 1) <= 1e-3):
        raise ValueError(
            f"{rule} needs weights >= 0 that sum to 1: smallest = {shares.min():g}, sum = {shares.sum():g}"
        )
    return shares


def weighted_mean(
    matrix: Floats, rows: NDArray[np.int64], weights: NDArray[np.float64], divisor: float | None = None
) -> Floats:
    """Return sum(weights[j] * matrix[rows[j]]) / divisor (d,), of the matrix's precision; only named rows are read.

    None divides by sum(weights), which takes out the rounding of float32 weights: equal rows give exactly that row.
    """
    total = float(weights.sum()) if divisor is None else divisor
    mean = np.empty(matrix.shape[1], matrix.dtype)

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
