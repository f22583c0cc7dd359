"""Average the updates after shortening the long ones.

Paper: Sun, Kairouz, Suresh and McMahan, "Can You Really Backdoor Federated Learning?", 2019, Section 4 (norm
bounding). There the bound M is given and FedAvg's weights stay. Here, without a bound, it is the median of the norms
of the round, as in Nguyen et al., "FLAME: Taming Backdoors in Federated Learning", USENIX Security 2022; and every
client counts once, since a client that may claim any number of samples is not bounded by any norm.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from thornbed.defenses.clipping import clip_bound, clip_factors
from thornbed.defenses.distances import row_lengths
from thornbed.defenses.reporting import acted
from thornbed.defenses.update_matrix import like, update_matrix
from thornbed.defenses.weighted_mean import weighted_mean


def norm_clipping(updates: Tensor, weights: Tensor, *, norm: float | None = None) -> Tensor:
    """Return the unweighted mean of the updates, each shortened to L2 norm `norm` where it is longer.

    updates: (n, d) floats, finite. weights are ignored: they are claims, and would lift the bound. norm > 0; None
    takes the median of the n norms, which knows nothing of the attack, and which fewer than half of the clients cannot
    move beyond the honest ones; it shortens about half of the honest updates too. One client moves the result by at
    most 2 * norm / n. It does NOT hinder an attack that needs no length.

    Reports `clipped_share` (clients shortened), `norms` (one a client) and `clip_norm` (the bound used). A tensor on a
    GPU is copied to the CPU and the result back.

    Raises ValueError when norm is not a positive finite number.
    """
    matrix = update_matrix("norm_clipping", updates, weights)
    n = matrix.shape[0]
    norms = row_lengths(matrix)
    bound = clip_bound("norm_clipping", "norm", norm, norms)
    factors = clip_factors(norms, bound)
    acted(clipped_share=float((norms > bound).mean()), norms=norms.tolist(), clip_norm=bound)
    return like(updates, weighted_mean(matrix, np.arange(n), factors, divisor=float(n)))
