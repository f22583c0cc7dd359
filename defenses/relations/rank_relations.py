"""Learn how nodes are related from the ranks of their weights, which no node can inflate.

Source: nobody's; the relation matrix is that of Y. Zhang and D.-Y. Yeung, "A Convex Formulation for Learning Task
Relationships in Multi-Task Learning", UAI 2010, Section 3, with ranks in place of weights: in W^T W a poisoned node
with large weights has most of the trace, and the rest is related by what is left.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from thornbed.defenses.relations import Floats, checked
from thornbed.defenses.reporting import acted


def rank_relations(weights: Floats, omega: Floats, lambdas: tuple[float, float], *, floor: float = 0.1) -> Floats:
    """Return Omega = Sigma^-1 for Sigma = R^(1/2) / tr(.), R (m, m) the rank correlations of the nodes' weights.

    floor in (0, 1]: eigenvalues of Sigma below floor / m are raised to it, then all are divided by their sum. A node's
    ranks are those of its d weights, so it has one row of R in [-1, 1], however large they are; lengths and signs as
    such say nothing any more. d is few, so R is rough: the floor has work to do. A node whose weights are all equal is
    related to none. omega is replaced, unless weights are all 0, which have no ranks. An intercept that is much larger
    than the other weights has no more say than they do, so it costs: on parkinsons_total, RMSE 2.7 became 5.1
    unattacked at lambda1 = 0.01. Reports `floored_share`, of the eigenvalues that were raised.
    Raises ValueError for a floor out of range and for matrices that do not fit.
    """
    checked("rank_relations", weights, omega, lambdas)
    if not 0 < floor <= 1:
        raise ValueError(f"rank_relations needs 0 < floor <= 1: floor = {floor}")
    if not weights.any():
        return omega.copy()
    ranks = rankdata(weights, axis=0) - (len(weights) + 1) / 2
    lengths = np.linalg.norm(ranks, axis=0)
    unit = ranks / np.where(lengths > 0, lengths, 1.0)
    related = unit.T @ unit
    np.fill_diagonal(related, 1.0)
    squares, vectors = np.linalg.eigh(related)
    roots = np.sqrt(np.maximum(squares, 0.0))
    low = floor / len(roots)
    shares = np.maximum(roots / roots.sum(), low)
    acted(floored_share=float((roots / roots.sum() < low).mean()))
    learnt = (vectors * (shares.sum() / shares)) @ vectors.T
    return np.asarray((learnt + learnt.T) / 2, dtype=np.float64)
