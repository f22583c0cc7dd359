"""The score of Krum, how far a client's update lies from its closest neighbours, and the choice by it.

Blanchard, El Mhamdi, Guerraoui and Stainer, "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent",
NeurIPS 2017, Section 4; Section 6 for the choice of several.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thornbed.defenses.distances import squared_distances
from thornbed.defenses.update_matrix import Floats


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
