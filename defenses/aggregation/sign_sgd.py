"""Go one step of equal size in every coordinate, in the direction that most clients vote for.

Paper: Bernstein, Zhao, Azizzadenesheli and Anandkumar, "signSGD with Majority Vote is Communication Efficient and
Fault Tolerant", ICLR 2019, Algorithm 1, after Bernstein et al., ICML 2018. There a vote is the sign of a gradient (or
of its momentum) after every batch, and the learning rate is the step. Here, as in Wang et al., AISTATS 2024, a vote is
the sign of a whole update w_client - w_global, which points downhill already. A fixed step would then have to be
chosen anew for every learning rate and number of local steps, so that by default the updates themselves set it.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from thornbed.defenses.reporting import acted
from thornbed.defenses.sign_votes import majority_signs
from thornbed.defenses.update_matrix import like, update_matrix


def sign_sgd(updates: Tensor, weights: Tensor, *, step_size: float | None = None) -> Tensor:
    """Return step_size times the sign of the sum of the clients' signs, coordinate by coordinate.

    updates: (n, d) floats, finite. weights are ignored: they are claims, and every client has one vote. Zeros do not
    vote, and a tie gives 0. step_size > 0 is the length of the step in every coordinate; None takes the median over
    the clients of their mean magnitude (the mean of |update| over its coordinates), which knows nothing of the attack
    and which fewer than half of the clients cannot move beyond the honest ones.

    Reports `overruled_share` (the share of the n * d votes on the smaller side of their coordinate) and `step_size`
    (the one used). A tensor on a GPU is copied to the CPU and the result back.

    Raises ValueError when step_size is not a positive finite number.
    """
    matrix = update_matrix("sign_sgd", updates, weights)
    n, d = matrix.shape
    if step_size is not None and not 0 < step_size < float("inf"):
        raise ValueError(f"sign_sgd needs a finite step_size > 0: n = {n}, step_size = {step_size}")
    values, magnitudes, lost = majority_signs(matrix)
    step = float(np.median(magnitudes)) / d if step_size is None else float(step_size)
    values *= values.dtype.type(step)
    acted(overruled_share=lost / (n * d), step_size=step)
    return like(updates, values)
