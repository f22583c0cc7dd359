"""The objective of federated multitask learning, its dual, and the gap between the two.

Paper: Smith et al., "Federated Multi-Task Learning", NeurIPS 2017, Equations 1 and 3; Sun et al., "Data Poisoning
Attacks on Federated Machine Learning", IEEE Internet of Things Journal 2022, Equations 1, 2, 8, 17, 18.

With m nodes, weights W (d, m) and A = lambda1 Omega + lambda2 I, which has to be positive definite,

    F(W) = sum_l (1/n_l) sum_i L(w_l . x_i, y_i) + tr(W A W^T).

The losses are L(z) = sup_a (-a z - L*(-a)), one a per point. Put in, with v_l = (1/n_l) sum_i a_i x_i the columns of V
(d, m), F is the maximum over a of -sum_l (1/n_l) sum_i L*(-a_i) - tr(W^T V) + tr(W A W^T), and this is smallest in W at

    W = V K,  K = A^-1 / 2:  w_t = sum_s K[t, s] v_s,

which leaves the dual

    D(a) = -sum_l (1/n_l) sum_i L*(-a_i) - tr(V K V^T) / 2,

L*(-a) = -y a + a^2 / 4 for the squared loss, and -y a for the hinge where 0 <= y a <= 1. D(a) <= F(W) for all a and W.
As printed, Equation 2 of Sun et al. takes the conjugate at X a where it has to be X a / lambda1, and its sum lacks the
1/n_l that Equation 3 has; Equations 12 and 13 have x . x a where the derivation gives x . w(a).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from thornbed.tasks.multitask import Array, Loss, Points


@dataclass(frozen=True, eq=False)
class Coupling:
    """How nodes are related, and how strongly that is imposed: `omega` (m, m) symmetric, lambda1 and lambda2 >= 0.

    Raises ValueError unless lambda1 * omega + lambda2 * I is positive definite.
    """

    omega: Array
    lambda1: float
    lambda2: float

    def __post_init__(self) -> None:
        if self.omega.ndim != 2 or self.omega.shape[0] != self.omega.shape[1] or not self.omega.size:
            raise ValueError(f"a relation matrix has shape (m, m): it has shape {self.omega.shape}")
        if not np.isfinite(self.omega).all() or not np.allclose(self.omega, self.omega.T, rtol=1e-9, atol=1e-12):
            raise ValueError("a relation matrix is finite and symmetric: this one is not")
        if not (0 <= self.lambda1 < math.inf and 0 <= self.lambda2 < math.inf):
            raise ValueError(
                f"a coupling needs finite lambda1 and lambda2 >= 0: lambda1 = {self.lambda1}, lambda2 = {self.lambda2}"
            )
        smallest, largest = (float(value) for value in np.linalg.eigvalsh(self.penalty)[[0, -1]])
        if not smallest > 1e-10 * largest:
            raise ValueError(
                "a coupling needs lambda1 * omega + lambda2 * I positive definite: its eigenvalues go from "
                f"{smallest:g} to {largest:g}, lambda1 = {self.lambda1}, lambda2 = {self.lambda2}"
            )

    @cached_property
    def penalty(self) -> Array:
        """A = lambda1 Omega + lambda2 I, (m, m)."""
        return np.asarray(self.lambda1 * self.omega + self.lambda2 * np.eye(len(self.omega)), dtype=np.float64)

    @cached_property
    def influence(self) -> Array:
        """K = A^-1 / 2, (m, m): K[t, s] is how far node s moves the weights of node t."""
        inverse = np.linalg.inv(self.penalty)
        return np.asarray((inverse + inverse.T) / 4, dtype=np.float64)

    @cached_property
    def safety(self) -> float:
        """Smallest sigma' with K <= sigma' diag(K): what all nodes can add in one round without overshooting, >= 1.

        Smith et al. bound it by the largest sum over a row of |K[t, s]| / K[t, t] (Lemma 9), which is never smaller.
        """
        scale = 1 / np.sqrt(np.diag(self.influence))
        return float(np.linalg.eigvalsh(self.influence * np.outer(scale, scale))[-1])

    def weights(self, v: Array) -> Array:
        """Return W = V K, (d, m), of the summed duals V (d, m)."""
        return v @ self.influence

    def price(self, weights: Array) -> float:
        """Return tr(W A W^T)."""
        return float(np.sum((weights @ self.penalty) * weights))


def losses(loss: Loss, x: Array, y: Array, w: Array) -> Array:
    """Return the loss of each point, (n,): x (n, d), y (n,), w (d,)."""
    z = x @ w
    return np.maximum(0.0, 1 - y * z) if loss == "hinge" else np.square(z - y)


def conjugates(loss: Loss, alpha: Array, y: Array) -> Array:
    """Return L*(-a) of each point, (n,); inf where the hinge's y a is outside [0, 1] by more than 1e-12."""
    if loss == "squared":
        return -y * alpha + np.square(alpha) / 4
    inside = np.abs(y * alpha - 0.5) <= 0.5 + 1e-12
    return np.where(inside, -y * alpha, np.inf)


def summed_duals(points: Sequence[Points], alphas: Sequence[Array]) -> Array:
    """Return V (d, m): v_l is the mean over node l's points of a_i x_i."""
    return np.column_stack([each.x.T @ alpha / len(each) for each, alpha in zip(points, alphas, strict=True)])


def primal(points: Sequence[Points], weights: Array, coupling: Coupling, loss: Loss) -> float:
    """Return F(W): points of m nodes, weights (d, m)."""
    means = [losses(loss, each.x, each.y, weights[:, node]).mean() for node, each in enumerate(points)]
    return float(np.sum(means)) + coupling.price(weights)


def dual(
    points: Sequence[Points], alphas: Sequence[Array], coupling: Coupling, loss: Loss, weights: Array | None = None
) -> float:
    """Return D(a), a lower bound of F: alphas are one array (n_l,) for each of the m nodes.

    `weights`: W(a), where they are known; that takes most of the time.
    """
    if weights is None:
        weights = coupling.weights(summed_duals(points, alphas))
    means = [conjugates(loss, alpha, each.y).mean() for each, alpha in zip(points, alphas, strict=True)]
    return -float(np.sum(means)) - coupling.price(weights)


def duality_gap(points: Sequence[Points], alphas: Sequence[Array], coupling: Coupling, loss: Loss) -> float:
    """Return F(W(a)) - D(a) >= 0: how far F(W(a)) is above the smallest F at the most."""
    weights = coupling.weights(summed_duals(points, alphas))
    return primal(points, weights, coupling, loss) - dual(points, alphas, coupling, loss, weights)


def unrelated(num_nodes: int) -> Array:
    """Return I - (1/m) 1 1^T, (m, m): every node is drawn to the mean of all, as the papers begin."""
    return np.eye(num_nodes) - np.full((num_nodes, num_nodes), 1 / num_nodes)
