"""Choose the one update that lies closest to its neighbours.

Paper: Blanchard, El Mhamdi, Guerraoui and Stainer, "Machine Learning with Adversaries: Byzantine Tolerant Gradient
Descent", NeurIPS 2017, Section 4 (the Krum function).
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from thornbed.defenses.distances import krum_scores
from thornbed.defenses.reporting import acted
from thornbed.defenses.update_matrix import like, update_matrix


def krum(updates: Tensor, weights: Tensor, *, num_byzantine: int | None = None) -> Tensor:
    """Return the update with the smallest sum of squared distances to its n - f - 2 closest others.

    updates: (n, d) floats, finite. weights are ignored: they are claims, and the score counts every client once.
    num_byzantine is f, how many attackers to withstand; None takes the largest f with n >= 2f + 3, that is
    (n - 3) // 2, and so needs no knowledge of the attack. Ties go to the lowest row, as in the paper, so between tied
    rows the order of the clients decides; with n = 3 the closest two always tie.

    Reports `selected` (the row, in a list), `scores` (one a client) and `num_byzantine` (the f used). A tensor on a
    GPU is copied to the CPU and the result back.

    Raises ValueError when num_byzantine is negative or n < 2f + 3.
    """
    matrix = update_matrix("krum", updates, weights)
    scores, f = krum_scores("krum", matrix, num_byzantine)
    row = int(np.argmin(scores))
    acted(selected=[row], scores=scores.tolist(), num_byzantine=f)
    return like(updates, matrix[row].copy())
