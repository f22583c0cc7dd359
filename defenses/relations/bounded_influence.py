"""Bound how far one node moves the model of another, as a share of how far that one's own points do.

Source: nobody's; the bound follows from the solution of the objective of Smith et al., "Federated Multi-Task
Learning", NeurIPS 2017: w_t = sum_s K[t, s] v_s with K = (lambda1 Omega + lambda2 I)^-1 / 2, so that K[t, s] / K[t, t]
is what node s has to say in node t beside t itself. An indirect attack has no other way in.
"""

from __future__ import annotations

import numpy as np

from thornbed.defenses.relations import Floats, checked
from thornbed.defenses.reporting import acted


def bounded_influence(weights: Floats, omega: Floats, lambdas: tuple[float, float], *, bound: float = 0.1) -> Floats:
    """Return the relation matrix whose K keeps its diagonal and has |K[t, s]| <= bound * sqrt(K[t, t] K[s, s]).

    All pairs are weakened by one factor, the largest that keeps the bound, so K stays positive definite, and no node
    learns which pair it was. bound in [0, 1]; 0 leaves every node alone. weights are ignored. Reports `weakened_share`,
    1 minus that factor. Raises ValueError for a bound out of range and for matrices that do not fit.
    """
    penalty = checked("bounded_influence", weights, omega, lambdas)
    if not 0 <= bound <= 1:
        raise ValueError(f"bounded_influence needs 0 <= bound <= 1: bound = {bound}")
    influence = np.linalg.inv(penalty)
    own = np.sqrt(np.diag(influence))
    across = np.abs(influence / np.outer(own, own))
    np.fill_diagonal(across, 0.0)
    factor = min(1.0, bound / float(across.max())) if across.max() > 0 else 1.0
    acted(weakened_share=1 - factor)
    if factor == 1:
        return omega.copy()
    weaker = factor * influence + (1 - factor) * np.diag(np.diag(influence))
    bounded = (np.linalg.inv((weaker + weaker.T) / 2) - lambdas[1] * np.eye(len(omega))) / lambdas[0]
    return np.asarray((bounded + bounded.T) / 2, dtype=np.float64)
