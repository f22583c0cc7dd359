"""Defenses of the server of multitask learning in how it relates nodes: `NAME(weights, omega, lambdas, *, options)`.

weights (d, m) are the nodes' present ones, omega (m, m) the relation matrix that would be used, lambdas the pair
(lambda1, lambda2) of the objective. What comes back is the relation matrix (m, m) to use instead: symmetric, with
lambda1 * omega + lambda2 * I positive definite, so that rounds go on as before. Inputs are never modified.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def checked(rule: str, weights: Floats, omega: Floats, lambdas: tuple[float, float]) -> Floats:
    """Return lambda1 * omega + lambda2 * I; raises ValueError, with the name of the defense, for what does not fit."""
    m = omega.shape[0]
    if omega.shape != (m, m) or weights.ndim != 2 or weights.shape[1] != m:
        raise ValueError(f"{rule} needs weights (d, m) and omega (m, m): shapes {weights.shape} and {omega.shape}")
    if not (np.isfinite(weights).all() and np.isfinite(omega).all()):
        raise ValueError(f"{rule} needs finite weights and relations: these are not")
    if not (lambdas[0] > 0 and lambdas[1] >= 0):
        raise ValueError(f"{rule} needs lambda1 > 0 and lambda2 >= 0, or nothing is related: lambdas = {lambdas}")
    penalty = np.asarray(lambdas[0] * omega + lambdas[1] * np.eye(m), dtype=np.float64)
    smallest = float(np.linalg.eigvalsh(penalty)[0])
    if not smallest > 0:
        raise ValueError(f"{rule} needs lambda1 * omega + lambda2 * I positive definite: smallest value {smallest:g}")
    return penalty
