"""Average the updates whose directions lie closest to their neighbours' directions.

Paper: Wang, Dimitriadis, Koyejo and Tople, "Invariant Aggregator for Defending against Federated Backdoor Attacks",
AISTATS 2024, Table 1 and Appendix D.6 (Multi-Krum_C): the Multi-Krum of Blanchard et al., NeurIPS 2017, with the
cosine distances of Nguyen et al., "FLAME: Taming Backdoors in Federated Learning", USENIX Security 2022. The paper
prints no formula. Here the score sums the distances 1 - cos of the n - f - 2 closest others, which is Krum's own score
of the updates scaled to length 1, halved; those selected are averaged as they were sent, with their lengths.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from thornbed.defenses.distances import best_rows, byzantine_number, cosine_distances, neighbour_scores
from thornbed.defenses.reporting import acted
from thornbed.defenses.update_matrix import like, update_matrix
from thornbed.defenses.weighted_mean import weighted_mean


def multi_krum_cosine(
    updates: Tensor, weights: Tensor, *, num_byzantine: int | None = None, num_selected: int | None = None
) -> Tensor:
    """Return the unweighted mean of the num_selected updates with the lowest Krum scores in cosine distance.

    updates: (n, d) floats, finite. weights are ignored: they are claims, also among the selected. num_byzantine is f;
    None takes the largest f with n >= 2f + 3, that is (n - 3) // 2. num_selected is m in 1..n - f; None takes n - f.
    An update of zeros has no direction: its distance to every other one is 1, as if orthogonal. It does NOT look at
    lengths, so one update in an honest direction, however long, can be selected and lead the mean away.

    Reports `selected` (rows, ascending), `scores` (one a client) and `num_byzantine` (the f used). A tensor on a GPU
    is copied to the CPU and the result back.

    Raises ValueError when num_byzantine is negative, n < 2f + 3, or num_selected is not in 1..n - f.
    """
    matrix = update_matrix("multi_krum_cosine", updates, weights)
    n = matrix.shape[0]
    f = byzantine_number("multi_krum_cosine", n, num_byzantine)
    scores = neighbour_scores(cosine_distances(matrix), n - f - 2)
    rows = best_rows("multi_krum_cosine", scores, f, num_selected)
    acted(selected=rows.tolist(), scores=scores.tolist(), num_byzantine=f)
    return like(updates, weighted_mean(matrix, rows, np.ones(len(rows))))
