"""Take the trimmed mean of the updates that Multi-Krum selects.

Paper: Wang, Dimitriadis, Koyejo and Tople, "Invariant Aggregator for Defending against Federated Backdoor Attacks",
AISTATS 2024, Appendix D.6 (the naive combination; "Krum Trimmed-Mean" of its tables), of Blanchard et al., NeurIPS
2017, and Yin et al., ICML 2018. The paper does not say what the trimmed share refers to: here to those selected.
"""

from __future__ import annotations

from torch import Tensor

from thornbed.defenses.distances import best_rows, krum_scores
from thornbed.defenses.order_statistics import kept_mean, tail_size
from thornbed.defenses.reporting import acted
from thornbed.defenses.update_matrix import like, update_matrix


def krum_trimmed_mean(
    updates: Tensor, weights: Tensor, *, num_byzantine: int | None = None, alpha: float = 0.25
) -> Tensor:
    """Return the trimmed mean, by coordinate, of the n - f updates with the lowest Krum scores.

    updates: (n, d) floats, finite. weights are ignored: they are claims, and both parts count every client once.
    num_byzantine is f; None takes the largest f with n >= 2f + 3, that is (n - 3) // 2. Of the m = n - f selected
    values of a coordinate ceil(alpha * m) are removed from each tail; alpha in [0, 0.5). Updates that are not selected
    are never read again.

    Reports `selected` (rows, ascending), `scores` (one a client), `num_byzantine` (the f used) and `trimmed_per_tail`
    (clients, of those selected). A tensor on a GPU is copied to the CPU and the result back.

    Raises ValueError when num_byzantine is negative, n < 2f + 3, alpha is out of range or trimming would leave nothing.
    """
    matrix = update_matrix("krum_trimmed_mean", updates, weights)
    scores, f = krum_scores("krum_trimmed_mean", matrix, num_byzantine)
    rows = best_rows("krum_trimmed_mean", scores, f, None)
    tail = tail_size("krum_trimmed_mean", alpha, len(rows))
    values, _ = kept_mean(matrix, tail, rows=rows)
    acted(selected=rows.tolist(), scores=scores.tolist(), num_byzantine=f, trimmed_per_tail=tail)
    return like(updates, values)
