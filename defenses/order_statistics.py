"""Columnwise order statistics of the update matrix, fused with the sign mask: the kernel of the coordinate-wise rules.

A sorting network (Batcher's odd-even merge sort: K. E. Batcher, "Sorting networks and their applications", AFIPS 1968)
sorts all columns of a block at once: each comparator is one vectorised min and max of two rows of a buffer that stays
in the cache. Comparators that cannot change the rows kept are left out. The kept rows are summed in ascending order in
float64, so the answer is the same bytes in whatever order the clients come, and what is trimmed is never added. (With
nothing to trim nothing is sorted, and the order of the clients can show in the last bit.)
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import ceil, floor

import numpy as np
from numba import njit
from numpy.typing import NDArray

from thornbed.defenses.update_matrix import Floats, over_columns

_BLOCK = 512  # columns sorted together; n = 20 rows of it are 40 KB, and up to n = 400 it fits a cache of 1 MB


def _ratio(option: float) -> Fraction:
    """Read a share as the ratio it was meant as: 0.3 is 3/10, 1/3 is 1/3, although neither is exact in binary.

    A value within about 1e-9 of a ratio of client numbers (n up to 1,000) is that ratio.
    """
    return Fraction(option).limit_denominator(1_000_000)


def tail_size(rule: str, alpha: float, n: int) -> int:
    """Return ceil(alpha * n), exact for decimal fractions: 0.1 of 30 is 3, 0.07 of 100 is 7.

    Raises ValueError when alpha is no share or when nothing would be left between the two tails.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"{rule} needs 0 <= alpha < 0.5: n = {n}, alpha = {alpha}")
    tail = ceil(_ratio(alpha) * n)
    if 2 * tail >= n:
        raise ValueError(f"{rule} needs 2*ceil(alpha*n) < n: n = {n}, alpha = {alpha}")
    return tail


def least_agreement(rule: str, tau: float, n: int) -> int:
    """Return the smallest whole number above tau * n, exact for decimal fractions: above 0.2 of 20 is 5.

    A coordinate passes the mask when |sum of signs| is at least this. Raises ValueError unless 0 <= tau < 1.
    """
    if not 0 <= tau < 1:
        raise ValueError(f"{rule} needs 0 <= tau < 1: n = {n}, tau = {tau}")
    return floor(_ratio(tau) * n) + 1


def quorum(rule: str, threshold: float, n: int) -> int:
    """Return ceil(threshold * n), exact for decimal fractions: at least 0.4 of 20 is 8, and of 30 is 12.

    Raises ValueError unless 0 <= threshold <= 1.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"{rule} needs 0 <= threshold <= 1: n = {n}, threshold = {threshold}")
    return ceil(_ratio(threshold) * n)


def kept_mean(
    matrix: Floats, tail: int, agreement: int = 0, rows: NDArray[np.int64] | None = None
) -> tuple[Floats, int]:
    """Average each column without its `tail` smallest and `tail` largest values; mask columns of little agreement.

    matrix: (n, d). Columns with |sum of signs| < agreement become 0; agreement 0 masks none and counts no signs. The
    sign of zero, of either kind, is 0. Where `rows` are named, the others are as if they were not there, and are never
    read. Returns the averages (d,) and the number of columns masked. The values are right to the rounding of float64,
    then rounded once to the matrix's precision. A mean of negative zeros is given as 0.
    """
    n, d = matrix.shape
    chosen = np.arange(n) if rows is None else rows
    network = _network(len(chosen), tail)
    averages = np.empty(d, matrix.dtype)

    def work(flat: Floats, stride: int, columns: slice) -> int:
        return int(_kept_mean(flat, stride, chosen, network, tail, agreement, averages[columns]))

    return averages, sum(over_columns(matrix, work))


def closest_mean(matrix: Floats, rows: NDArray[np.int64], count: int) -> Floats:
    """Average, in each column, the `count` of the values of the named rows that lie closest to their median.

    The median of an even number of values is the mean of the middle two. Of two values equally far from it on either
    side, where only one can stay, the smaller stays. Sums are in float64, ascending, and rounded once to the matrix's
    precision (d,).
    """
    averages = np.empty(matrix.shape[1], matrix.dtype)
    network = _as_array(_comparators(len(rows)))

    def work(flat: Floats, stride: int, columns: slice) -> None:
        _closest_mean(flat, stride, rows, network, count, averages[columns])

    over_columns(matrix, work)
    return averages


def _comparators(n: int) -> list[tuple[int, int]]:
    """List the comparators (low wire, high wire) that sort n wires."""
    comparators = []
    size = 1
    while size < n:  # merge sorted runs of `size` into runs twice as long
        step = size
        while step >= 1:
            for first in range(step % size, n - step, 2 * step):
                for low in range(first, min(first + step, n - step)):
                    if low // (2 * size) == (low + step) // (2 * size):
                        comparators.append((low, low + step))
            step //= 2
        size *= 2
    return comparators


@lru_cache(maxsize=64)
def _network(n: int, tail: int) -> NDArray[np.int64]:
    """List the comparators that put the kept rows tail..n-tail-1 into their sorted places."""
    # Walk back from the outputs: a comparator that feeds no wanted wire changes nothing that is kept.
    # Without tails everything is kept in any order, and no wire is wanted.
    wanted = set(range(tail, n - tail)) if tail else set()
    needed = []
    for low, high in reversed(_comparators(n)):
        if low in wanted or high in wanted:
            needed.append((low, high))
            wanted |= {low, high}
    return _as_array(needed[::-1])


def _as_array(comparators: list[tuple[int, int]]) -> NDArray[np.int64]:
    network = np.array(comparators, np.int64).reshape(-1, 2)
    network.flags.writeable = False  # the cache hands the same array to every caller
    return network


@njit(nogil=True, cache=True)
def _sort(block: Floats, network: NDArray[np.int64], size: int) -> None:
    for c in range(network.shape[0]):
        low = block[network[c, 0]]
        high = block[network[c, 1]]
        for k in range(size):
            a = low[k]
            b = high[k]
            low[k] = a if a < b else b
            high[k] = b if a < b else a


@njit(nogil=True, cache=True)
def _kept_mean(
    flat: Floats,
    stride: int,
    rows: NDArray[np.int64],
    network: NDArray[np.int64],
    tail: int,
    agreement: int,
    averages: Floats,
) -> int:
    n = rows.size
    width = averages.size
    block = np.empty((n, _BLOCK), flat.dtype)
    signs = np.empty(_BLOCK, np.int32)
    total = np.empty(_BLOCK, np.float64)
    kept = n - 2 * tail
    masked = 0
    for start in range(0, width, _BLOCK):
        size = min(_BLOCK, width - start)
        signs[:] = 0
        total[:] = 0.0
        for i in range(n):
            first = rows[i] * stride + start
            source = flat[first : first + size]
            row = block[i]
            for k in range(size):
                row[k] = source[k]
            if agreement > 0:
                for k in range(size):
                    signs[k] += np.int32(source[k] > 0) - np.int32(source[k] < 0)
        _sort(block, network, size)
        for i in range(tail, n - tail):
            row = block[i]
            for k in range(size):
                total[k] += row[k]
        out = averages[start : start + size]
        for k in range(size):
            if abs(signs[k]) < agreement:
                out[k] = 0.0
                masked += 1
            else:
                out[k] = total[k] / kept
    return masked


@njit(nogil=True, cache=True)
def _closest_mean(
    flat: Floats,
    stride: int,
    rows: NDArray[np.int64],
    network: NDArray[np.int64],
    count: int,
    averages: Floats,
) -> None:
    n = rows.size
    block = np.empty((n, _BLOCK), flat.dtype)
    for start in range(0, averages.size, _BLOCK):
        size = min(_BLOCK, averages.size - start)
        for i in range(n):
            first = rows[i] * stride + start
            block[i, :size] = flat[first : first + size]
        _sort(block, network, size)
        for k in range(size):
            median = (np.float64(block[(n - 1) // 2, k]) + np.float64(block[n // 2, k])) / 2
            low, high = 0, n - 1
            while high - low >= count:  # of sorted values, the one furthest from the median is at either end
                if median - block[low, k] > block[high, k] - median:
                    low += 1
                else:
                    high -= 1
            total = 0.0
            for i in range(low, high + 1):
                total += block[i, k]
            averages[start + k] = total / count
