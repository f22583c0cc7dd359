"""Keep a coordinate only where the clients agree on its sign, and take the plain mean there.

Paper: Parascandolo, Neitz, Orvieto, Gresele and Schölkopf, "Learning explanations that are hard to vary", ICLR 2021,
Section 3 (the AND-mask); across clients as in Wang et al., AISTATS 2024, Section 5.1, whose ablation it is. The first
keeps a coordinate whose consistency is tau, the second's Definition 7 does not, and so it is here.
"""

from __future__ import annotations

from torch import Tensor

from thornbed.defenses.order_statistics import kept_mean, least_agreement
from thornbed.defenses.reporting import acted
from thornbed.defenses.update_matrix import like, update_matrix


def and_mask(updates: Tensor, weights: Tensor, *, tau: float = 0.2) -> Tensor:
    """Return the unweighted mean where the sign consistency is above tau, and 0 elsewhere.

    updates: (n, d) floats, finite. weights are ignored: they are claims, and the mask counts every client once.
    tau in [0, 1): a coordinate passes when |sum of signs| > tau * n, strictly and without rounding errors. It does NOT
    bound what one client can do in a coordinate that passes; `invariant` adds the trimmed mean for that.

    Reports `masked_share`, the share of coordinates set to 0. A tensor on a GPU is copied to the CPU and the result
    back.

    Raises ValueError when tau is out of range.
    """
    matrix = update_matrix("and_mask", updates, weights)
    n, d = matrix.shape
    values, masked = kept_mean(matrix, 0, least_agreement("and_mask", tau, n))
    acted(masked_share=masked / d)
    return like(updates, values)
