"""Average the updates that lie closest to their neighbours.

Paper: Blanchard, El Mhamdi, Guerraoui and Stainer, "Machine Learning with Adversaries: Byzantine Tolerant Gradient
Descent", NeurIPS 2017, Section 6 (Multi-Krum, the mean of the m best scores).
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from thornbed.defenses.distances import best_rows, krum_scores
from thornbed.defenses.reporting import acted
from thornbed.defenses.update_matrix import like, update_matrix
from thornbed.defenses.weighted_mean import weighted_mean


def multi_krum(
    updates: Tensor, weights: Tensor, *, num_byzantine: int | None = None, num_selected: int | None = None
) -> Tensor:
    """Return the unweighted mean of the num_selected updates with the lowest Krum scores.

    updates: (n, d) floats, finite. weights are ignored: they are claims, also among the selected. num_byzantine is f;
    None takes the largest f with n >= 2f + 3, that is (n - 3) // 2. num_selected is m in 1..n - f; None takes n - f,
    as many as are honest if f are not. Ties go to the lowest row, as in `krum`.

    Reports `selected` (rows, ascending), `scores` (one a client) and `num_byzantine` (the f used). A tensor on a GPU
    is copied to the CPU and the result back.

    Raises ValueError when num_byzantine is negative, n < 2f + 3, or num_selected is not in 1..n - f.
    """
    matrix = update_matrix("multi_krum", updates, weights)
    scores, f = krum_scores("multi_krum", matrix, num_byzantine)
    rows = best_rows("multi_krum", scores, f, num_selected)
    acted(selected=rows.tolist(), scores=scores.tolist(), num_byzantine=f)
    return like(updates, weighted_mean(matrix, rows, np.ones(len(rows))))
