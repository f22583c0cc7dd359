"""Inner products of all pairs of client updates, taken from a given centre, in float64.

They hold the geometry of every weighted mean of the updates: for shares b that sum to 1 and v = sum_j b_j x_j,
|x_i - v|^2 = G_ii - 2 (G b)_i + b^T G b with G_ij = <x_i - centre, x_j - centre>, so that an iteration over such means
costs n^2 instead of n d. The squared distances between the rows hold the same, and would need no centre, but one row
at 1e20 takes the digits of all others: what an outlier has to do with an honest row is a difference of two numbers
of 1e40. With a centre among the honest rows, such as the coordinate-wise median, all three terms are of the size of
honest distances, and nothing cancels.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from thornbed.defenses.update_matrix import Floats, over_columns

_BLOCK = 256  # columns multiplied together, held as float64: n = 200 rows of it are 400 KB


def inner_products(matrix: Floats, centre: Floats) -> NDArray[np.float64]:
    """Return the (n, n) inner products of the rows of the (n, d) matrix minus the centre (d,); exactly symmetric.

    Time grows with n^2 d. The last bits depend on the vector width of the processor, never on the number of threads,
    and a permutation of the rows permutes the bytes.
    """
    n = matrix.shape[0]
    padded = n + -n % 4  # the kernel takes 2 by 4 rows at a time; rows of zeros fill up

    def work(flat: Floats, stride: int, columns: slice) -> NDArray[np.float64]:
        partial = np.zeros((padded, padded))
        _add_products(flat, stride, n, centre[columns], partial)
        return partial

    products = np.zeros((padded, padded))
    for partial in over_columns(matrix, work):  # in column order, whichever thread was first
        products += partial
    upper = np.triu(products[:n, :n])
    return upper + np.triu(upper, 1).T


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _add_products(flat: Floats, stride: int, n: int, centre: Floats, products: NDArray[np.float64]) -> None:
    padded = products.shape[0]
    block = np.zeros((padded, _BLOCK), np.float64)
    for start in range(0, centre.size, _BLOCK):
        size = min(_BLOCK, centre.size - start)
        middle = centre[start : start + size]
        for i in range(n):
            source = flat[i * stride + start : i * stride + start + size]
            row = block[i]
            for k in range(size):
                row[k] = np.float64(source[k]) - np.float64(middle[k])
        for i in range(0, padded, 2):  # eight products for six loads: the loads are what takes the time
            a, b = block[i], block[i + 1]
            for j in range(i - i % 4, padded, 4):
                p, q, r, s = block[j], block[j + 1], block[j + 2], block[j + 3]
                ap = aq = ar = as_ = bp = bq = br = bs = 0.0
                for k in range(size):
                    ap += a[k] * p[k]
                    aq += a[k] * q[k]
                    ar += a[k] * r[k]
                    as_ += a[k] * s[k]
                    bp += b[k] * p[k]
                    bq += b[k] * q[k]
                    br += b[k] * r[k]
                    bs += b[k] * s[k]
                products[i, j] += ap
                products[i, j + 1] += aq
                products[i, j + 2] += ar
                products[i, j + 3] += as_
                products[i + 1, j] += bp
                products[i + 1, j + 1] += bq
                products[i + 1, j + 2] += br
                products[i + 1, j + 3] += bs
