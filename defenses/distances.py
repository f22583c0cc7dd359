"""Distances between client updates, from direct differences in float64, and their lengths and cosines with one vector.

The usual trick |a|^2 + |b|^2 - 2ab subtracts numbers that are nearly equal: in float32 it is wrong by 10% when clients
differ by 1e-4 and gives negative distances at 1e-5. Differences do not cancel, and they cost no more here, because a
block of columns is read once for all pairs and stays in the cache.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from thornbed.defenses.update_matrix import Floats, over_columns

_BLOCK = 256  # columns compared together, held as float64: n = 200 rows of it are 400 KB


def squared_distances(matrix: Floats, scales: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Return the (n, n) squared distances between the rows of the (n, d) matrix; exactly symmetric, diagonal 0.

    With `scales` (n,) row i is first multiplied by scales[i], in float64 and without a copy of the matrix.
    Time grows with n^2 d. Beside the result it holds n^2 float64 for every 65,536 columns. The last bits depend on
    the vector width of the processor, never on the number of threads, and a permutation of the rows permutes the bytes.
    """
    n = matrix.shape[0]
    factors = np.ones(n) if scales is None else scales

    def work(flat: Floats, stride: int, columns: slice) -> NDArray[np.float64]:
        partial = np.zeros((n, n))
        _add_distances(flat, stride, columns.stop - columns.start, factors, partial)
        return partial

    distances = np.zeros((n, n))
    for partial in over_columns(matrix, work):  # in column order, whichever thread was first
        distances += partial
    return distances


def cosine_distances(matrix: Floats) -> NDArray[np.float64]:
    """Return the (n, n) cosine distances 1 - cos in [0, 2] between the rows; exactly symmetric, diagonal 0.

    They are half the squared distances between the rows scaled to length 1: 1 - cos itself loses all digits where two
    updates nearly agree. A row of zeros has no direction: its distance to every other row, of zeros or not, is 1, that
    of orthogonal updates, so that it is nobody's neighbour.
    """
    lengths = row_lengths(matrix)
    zero = lengths == 0
    distances = squared_distances(matrix, 1 / np.where(zero, 1.0, lengths)) / 2
    distances[zero, :] = distances[:, zero] = 1.0
    np.fill_diagonal(distances, 0.0)
    return distances


def row_lengths(matrix: Floats, centre: Floats | None = None) -> NDArray[np.float64]:
    """Return the L2 norms (n,) of the rows of the (n, d) matrix minus the centre (d,), by default 0, in float64."""
    n = matrix.shape[0]

    def work(flat: Floats, stride: int, columns: slice) -> NDArray[np.float64]:
        partial = np.zeros(n)
        middle = np.zeros(columns.stop - columns.start, np.float32) if centre is None else centre[columns]
        _add_squares(flat, stride, middle, partial)
        return partial

    squares = np.zeros(n)
    for partial in over_columns(matrix, work):
        squares += partial
    return np.sqrt(squares)


def cosines_with(matrix: Floats, reference: Floats) -> NDArray[np.float64]:
    """Return the cosine in [-1, 1] of each row of the (n, d) matrix with the contiguous reference (d,), in float64.

    It is 0 where either is a vector of zeros, which has no direction.
    """
    n = matrix.shape[0]

    def work(flat: Floats, stride: int, columns: slice) -> NDArray[np.float64]:
        partial = np.zeros(n)
        _add_products(flat, stride, reference[columns], partial)
        return partial

    products = np.zeros(n)
    for partial in over_columns(matrix, work):
        products += partial
    lengths = row_lengths(matrix) * row_lengths(reference[None])
    cosines = np.divide(products, lengths, out=np.zeros(n), where=lengths > 0)
    return np.clip(cosines, -1.0, 1.0)  # rounding alone can lead outside


# "reassoc" and "contract" allow vector sums and fused multiply-adds, in float64, and nothing else of fast-math.
@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _add_squares(flat: Floats, stride: int, centre: Floats, squares: NDArray[np.float64]) -> None:
    for i in range(squares.size):
        row = flat[i * stride : i * stride + centre.size]
        square = 0.0
        for k in range(centre.size):
            difference = np.float64(row[k]) - np.float64(centre[k])
            square += difference * difference
        squares[i] += square


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _add_products(flat: Floats, stride: int, reference: Floats, products: NDArray[np.float64]) -> None:
    for i in range(products.size):
        row = flat[i * stride : i * stride + reference.size]
        product = 0.0
        for k in range(reference.size):
            product += np.float64(row[k]) * np.float64(reference[k])
        products[i] += product


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _add_distances(
    flat: Floats, stride: int, width: int, factors: NDArray[np.float64], distances: NDArray[np.float64]
) -> None:
    # Two rows against two: every number that is loaded serves two pairs, which is 2.5 times as fast as one by one. A
    # row of zeros makes the number of rows even, and zeros fill the last block: neither adds anything to the others.
    n = distances.shape[0]
    block = np.zeros((n + n % 2, _BLOCK), np.float64)
    sums = np.zeros((n + n % 2, n + n % 2))
    for start in range(0, width, _BLOCK):
        size = min(_BLOCK, width - start)
        for i in range(n):
            source = flat[i * stride + start : i * stride + start + size]
            row = block[i]
            factor = factors[i]
            for k in range(size):
                row[k] = factor * source[k]
            row[size:] = 0.0
        for i in range(0, n, 2):
            one, two = block[i], block[i + 1]
            for j in range(i, n, 2):
                left, right = block[j], block[j + 1]
                one_left = one_right = two_left = two_right = 0.0
                for k in range(_BLOCK):
                    one_left += (one[k] - left[k]) ** 2
                    one_right += (one[k] - right[k]) ** 2
                    two_left += (two[k] - left[k]) ** 2
                    two_right += (two[k] - right[k]) ** 2
                sums[i, j] += one_left
                sums[i, j + 1] += one_right
                sums[i + 1, j] += two_left
                sums[i + 1, j + 1] += two_right
    for i in range(n):
        for j in range(i + 1, n):
            distances[i, j] += sums[i, j]
            distances[j, i] += sums[i, j]
