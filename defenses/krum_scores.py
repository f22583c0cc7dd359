"""The score of Krum: how far a client's update lies from its closest neighbours.

Blanchard, El Mhamdi, Guerraoui and Stainer, "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent",
NeurIPS 2017, Section 4.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from defenses.distances import squared_distances
from defenses.update_matrix import Floats


def krum_scores(rule: str, matrix: Floats, num_byzantine: int | None) -> tuple[NDArray[np.float64], int]:
    """Return the n scores and f: each score is the sum of squared distances to the n - f - 2 closest other rows.

    f is `num_byzantine`; None means the largest that the condition n >= 2f + 3 allows, which needs no knowledge of
    the attack. The distances are sorted before they are summed, so reordered clients get the same bytes as scores.

    Raises ValueError when f is negative or n < 2f + 3.
    """
    n = matrix.shape[0]
    f = max(0, (n - 3) // 2) if num_byzantine is None else num_byzantine
    if f < 0:
        raise ValueError(f"{rule} needs num_byzantine >= 0: n = {n}, num_byzantine = {f}")
    if n < 2 * f + 3:
        raise ValueError(f"{rule} needs n >= 2f + 3: n = {n}, f = {f}")
    distances = squared_distances(matrix)
    np.fill_diagonal(distances, np.inf)  # a row is no neighbour of itself
    closest = np.sort(distances, axis=1)[:, : n - f - 2]
    return closest.sum(axis=1), f
