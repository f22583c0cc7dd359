"""Keep a coordinate only where the clients agree on its sign, and take the trimmed mean there.

Paper: Wang, Dimitriadis, Koyejo and Tople, "Invariant Aggregator for Defending against Federated Backdoor Attacks",
AISTATS 2024, Algorithm 1. The sign consistency is that of Section 5.1, |mean over clients of sign(update)|;
Definition 7 prints the sum instead of the mean and a factor 1/N, which contradict the text and a tau below 1. Where the
consistency is exactly tau the paper says both: the text of Section 5.1 and the proof of Theorem 10 let it pass,
Definition 7, Algorithm 1 and the example of Figure 2b ("if tau >= 1/7") mask it, and so it is here.
"""

from __future__ import annotations

from torch import Tensor

from thornbed.defenses.order_statistics import kept_mean, least_agreement, tail_size
from thornbed.defenses.reporting import acted
from thornbed.defenses.update_matrix import like, update_matrix


def invariant(updates: Tensor, weights: Tensor, *, tau: float = 0.2, alpha: float = 0.25) -> Tensor:
    """Return the trimmed mean where the sign consistency is above tau, and 0 elsewhere.

    updates: (n, d) floats, finite. weights are ignored: they are claims, and a client that claims many samples would
    outvote the others; the paper's mask and trimmed mean count every client once. tau in [0, 1): a coordinate passes
    when |sum of signs| > tau * n, strictly and without rounding errors (4 of 20 is not above 0.2). alpha in [0, 0.5):
    ceil(alpha * n) values are removed from each tail (Definition 9). A large tau also slows honest learning.

    Reports `masked_share` (share of coordinates set to 0) and `trimmed_per_tail` (clients). A tensor on a GPU is
    copied to the CPU and the result back.

    Raises ValueError when tau or alpha is out of range or trimming would leave nothing.
    """
    matrix = update_matrix("invariant", updates, weights)
    n, d = matrix.shape
    agreement = least_agreement("invariant", tau, n)
    tail = tail_size("invariant", alpha, n)
    values, masked = kept_mean(matrix, tail, agreement)
    acted(masked_share=masked / d, trimmed_per_tail=tail)
    return like(updates, values)
