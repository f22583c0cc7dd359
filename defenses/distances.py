"""Distances between client updates, from direct differences in float64, and their lengths and cosines with one vector.

The usual trick |a|^2 + |b|^2 - 2ab subtracts numbers that are nearly equal: in float32 it is wrong by 10% when clients
differ by 1e-4 and gives negative distances at 1e-5. Differences do not cancel, and they cost no more here, because a
block of columns is read once for all pairs and stays in the cache.

Krum's score of a client, how far its update lies from its closest neighbours, is made of them: Blanchard, El Mhamdi,
Guerraoui and Stainer, "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017, Section
4; Section 6 for the choice of several.
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
        middle = np.zeros(columns.stop - columns.start, matrix.dtype) if centre is None else centre[columns]
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


def byzantine_number(rule: str, n: int, num_byzantine: int | None) -> int:
    """Return f: `num_byzantine`, or for None the largest with n >= 2f + 3, which needs no knowledge of the attack.

    Raises ValueError when f is negative or n < 2f + 3.
    """
    f = max(0, (n - 3) // 2) if num_byzantine is None else num_byzantine
    if f < 0:
        raise ValueError(f"{rule} needs num_byzantine >= 0: n = {n}, num_byzantine = {f}")
    if n < 2 * f + 3:
        raise ValueError(f"{rule} needs n >= 2f + 3: n = {n}, f = {f}")
    return f


def neighbour_scores(distances: NDArray[np.float64], neighbours: int) -> NDArray[np.float64]:
    """Return for each row of the (n, n) distances the sum of its distances to the `neighbours` closest other rows.

    The distances are sorted before they are summed, so reordered clients get the same bytes as scores.
    """
    apart = distances.copy()
    np.fill_diagonal(apart, np.inf)  # a row is no neighbour of itself
    sums: NDArray[np.float64] = np.sort(apart, axis=1)[:, :neighbours].sum(axis=1)
    return sums


def krum_scores(rule: str, matrix: Floats, num_byzantine: int | None) -> tuple[NDArray[np.float64], int]:
    """Return the n scores and f: each score is the sum of squared distances to the n - f - 2 closest other rows.

    f is that of `byzantine_number`, whose errors it raises before any distance is taken.
    """
    n = matrix.shape[0]
    f = byzantine_number(rule, n, num_byzantine)
    return neighbour_scores(squared_distances(matrix), n - f - 2), f


def best_rows(rule: str, scores: NDArray[np.float64], f: int, num_selected: int | None) -> NDArray[np.int64]:
    """Return the num_selected rows of the lowest scores, ascending; None takes n - f. Ties go to the lowest row.

    Raises ValueError when num_selected is not in 1..n - f.
    """
    most = len(scores) - f
    count = most if num_selected is None else num_selected
    if not 1 <= count <= most:
        raise ValueError(f"{rule} needs 1 <= num_selected <= n - f: num_selected = {count}, n - f = {most}")
    return np.sort(np.argsort(scores, kind="stable")[:count])
