"""The votes of the clients on the sign of each coordinate, in one pass over the update matrix."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from thornbed.defenses.update_matrix import Floats, over_columns

_BLOCK = 1024  # columns counted together: 8 KB of counts, which stay in the first cache


def majority_signs(matrix: Floats) -> tuple[Floats, NDArray[np.float64], int]:
    """Return the sign of the sum of signs (d,), the sums of magnitudes (n,), and how many votes lost.

    matrix: (n, d). Zeros of either kind do not vote. A tie gives 0. In each coordinate the votes that lost are those of
    the smaller side (one side, where it is a tie). The magnitudes are summed in float64.
    """
    n, d = matrix.shape
    signs = np.empty(d, matrix.dtype)

    def work(flat: Floats, stride: int, columns: slice) -> tuple[NDArray[np.float64], int]:
        magnitudes = np.zeros(n)
        lost = _majority(flat, stride, signs[columns], magnitudes)
        return magnitudes, int(lost)

    total, losers = np.zeros(n), 0
    for magnitudes, lost in over_columns(matrix, work):  # in column order, whichever thread was first
        total += magnitudes
        losers += lost
    return signs, total, losers


def mean_flipped_below(matrix: Floats, shares: NDArray[np.float64], agreement: int) -> tuple[Floats, int]:
    """Return the mean of the rows by shares (n,), negated where |sum of signs| < agreement, and how many were negated.

    The mean is sum(shares[i] * matrix[i]) / sum(shares), in float64 and rounded once to the matrix's precision (d,).
    A mean of zero stays 0 and is not counted.
    """
    mean = np.empty(matrix.shape[1], matrix.dtype)
    total = float(shares.sum())

    def work(flat: Floats, stride: int, columns: slice) -> int:
        return int(_flipped_mean(flat, stride, shares, total, agreement, mean[columns]))

    return mean, sum(over_columns(matrix, work))


# "reassoc" allows vector sums of the magnitudes, in float64; the counts are whole numbers.
@njit(nogil=True, cache=True, fastmath={"reassoc"})
def _majority(flat: Floats, stride: int, signs: Floats, magnitudes: NDArray[np.float64]) -> int:
    above = np.empty(_BLOCK, np.int32)
    below = np.empty(_BLOCK, np.int32)
    lost = 0
    for start in range(0, signs.size, _BLOCK):
        size = min(_BLOCK, signs.size - start)
        above[:] = 0
        below[:] = 0
        for i in range(magnitudes.size):
            source = flat[i * stride + start : i * stride + start + size]
            magnitude = 0.0
            for k in range(size):
                above[k] += np.int32(source[k] > 0)
                below[k] += np.int32(source[k] < 0)
                magnitude += np.float64(abs(source[k]))
            magnitudes[i] += magnitude
        out = signs[start : start + size]
        for k in range(size):
            out[k] = np.int32(above[k] > below[k]) - np.int32(above[k] < below[k])
            lost += min(above[k], below[k])
    return lost


@njit(nogil=True, cache=True)
def _flipped_mean(
    flat: Floats, stride: int, shares: NDArray[np.float64], total: float, agreement: int, mean: Floats
) -> int:
    signs = np.empty(_BLOCK, np.int32)
    sums = np.empty(_BLOCK, np.float64)
    flipped = 0
    for start in range(0, mean.size, _BLOCK):
        size = min(_BLOCK, mean.size - start)
        signs[:] = 0
        sums[:] = 0.0
        for i in range(shares.size):
            source = flat[i * stride + start : i * stride + start + size]
            share = shares[i]
            for k in range(size):
                signs[k] += np.int32(source[k] > 0) - np.int32(source[k] < 0)
                sums[k] += share * source[k]
        out = mean[start : start + size]
        for k in range(size):
            out[k] = sums[k] / total
            if abs(signs[k]) < agreement and out[k] != 0:  # what is too small for the precision is 0
                out[k] = -out[k]
                flipped += 1
    return flipped
