"""Average the updates by the weights that the clients claim: the baseline, which is no defense.

Paper: McMahan, Moore, Ramage, Hampson and Agüera y Arcas, "Communication-Efficient Learning of Deep Networks from
Decentralized Data", AISTATS 2017, Algorithm 1.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from thornbed.defenses.update_matrix import like, update_matrix
from thornbed.defenses.weighted_mean import claimed_shares, weighted_mean


def fedavg(updates: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean of the updates.

    updates: (n, d) floats, finite. weights: (n,), shares of the samples, which sum to 1 up to rounding. The sum runs
    in float64 and is divided by the sum of the weights, so equal updates give exactly that update. One client can
    move the result anywhere, so nothing is reported to `defenses.reporting`. A tensor on a GPU is copied to the CPU and
    the result back.

    Raises ValueError when a weight is negative or the sum is more than 0.001 away from 1.
    """
    matrix = update_matrix("fedavg", updates, weights)
    shares = claimed_shares("fedavg", weights)
    return like(updates, weighted_mean(matrix, np.arange(len(shares)), shares))
