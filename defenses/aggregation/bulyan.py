"""Select updates by repeated Krum, then average in each coordinate the values closest to the median of those selected.

Paper: El Mhamdi, Guerraoui and Rouault, "The Hidden Vulnerability of Distributed Learning in Byzantium", ICML 2018
(Bulyan over Krum). Krum is asked theta = n - 2f times, each time among the updates not chosen yet, and looks at the
closest n' - f - 2 of the n' left. At the end that would be fewer than one, where Krum's own condition no longer holds:
here it is at least one. Two updates that are each other's only neighbour tie; then the smaller sum of all distances
decides, and only after that the lower row, so that the order of the clients does not. The median of an even number of
values, which the paper leaves open, is the mean of the middle two.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from thornbed.defenses.distances import neighbour_scores, squared_distances
from thornbed.defenses.order_statistics import closest_mean
from thornbed.defenses.reporting import acted
from thornbed.defenses.update_matrix import like, update_matrix


def bulyan(updates: Tensor, weights: Tensor, *, num_byzantine: int | None = None) -> Tensor:
    """Return, by coordinate, the mean of the theta - 2f values closest to the median of the theta = n - 2f selected.

    updates: (n, d) floats, finite. weights are ignored: they are claims. num_byzantine is f, how many attackers to
    withstand; None takes the largest f with n >= 4f + 3, that is (n - 3) // 4, and so needs no knowledge of the attack.
    With f = 0 it is the plain mean.

    Reports `selected` (rows, ascending) and `num_byzantine` (the f used). A tensor on a GPU is copied to the CPU and
    the result back.

    Raises ValueError when num_byzantine is negative or n < 4f + 3.
    """
    matrix = update_matrix("bulyan", updates, weights)
    n = matrix.shape[0]
    f = max(0, (n - 3) // 4) if num_byzantine is None else num_byzantine
    if f < 0:
        raise ValueError(f"bulyan needs num_byzantine >= 0: n = {n}, num_byzantine = {f}")
    if n < 4 * f + 3:
        raise ValueError(f"bulyan needs n >= 4f + 3: n = {n}, f = {f}")
    rows = _selected(squared_distances(matrix), f)
    acted(selected=rows.tolist(), num_byzantine=f)
    return like(updates, closest_mean(matrix, rows, n - 4 * f))


def _selected(distances: NDArray[np.float64], f: int) -> NDArray[np.int64]:
    """Return the rows that Krum chooses one after the other, ascending."""
    left = np.arange(len(distances))
    chosen = []
    while len(left) > 2 * f:
        among = distances[np.ix_(left, left)]
        scores = neighbour_scores(among, max(1, len(left) - f - 2))
        sums = neighbour_scores(among, len(left) - 1)
        best = np.lexsort((sums, scores))[0]  # by score, then by sum; lexsort keeps the order of rows that tie
        chosen.append(left[best])
        left = np.delete(left, best)
    return np.sort(np.array(chosen))
