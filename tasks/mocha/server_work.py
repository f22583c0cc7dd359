"""What the server does in MOCHA: it puts the nodes' sums together, and learns how the nodes are related.

Paper: Smith et al., "Federated Multi-Task Learning", NeurIPS 2017, Algorithm 1; for the relation matrix, Zhang and
Yeung, "A Convex Formulation for Learning Task Relationships in Multi-Task Learning", UAI 2010, Section 3.

d numbers go to each node (its weights) and d come back (its summed duals); beside them goes one, the curvature of its
local problem. The server has no point of any node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from thornbed.tasks.mocha.objective import Coupling
from thornbed.tasks.multitask import Array


@dataclass(frozen=True, eq=False)
class MochaServer:
    """The server between two rounds: `v` (d, m), the latest sums of all nodes, and how they are coupled.

    `safety` multiplies the curvature of the local problems (sigma'); None is the smallest that is safe.
    """

    v: Array
    coupling: Coupling
    safety: float | None = None

    def __post_init__(self) -> None:
        if self.v.ndim != 2 or self.v.shape[1] != len(self.coupling.omega):
            raise ValueError(
                f"a server of {len(self.coupling.omega)} nodes has sums of shape (d, m): they have shape {self.v.shape}"
            )
        if self.safety is not None and not 0 < self.safety < np.inf:
            raise ValueError(f"a server needs a finite safety > 0: safety = {self.safety}")

    @property
    def weights(self) -> Array:
        """W (d, m); column l is what node l is sent."""
        return self.coupling.weights(self.v)

    @property
    def curvatures(self) -> Array:
        """sigma' K[l, l], (m,), the number that goes with the weights."""
        return (self.coupling.safety if self.safety is None else self.safety) * np.diag(self.coupling.influence)

    def receive(self, replies: Mapping[int, Array]) -> MochaServer:
        """Return the server with the sums (d,) that came back, by node; nodes that dropped out keep theirs.

        Raises ValueError for a node that is not there, and with its number for a reply of another shape or not finite.
        """
        v = self.v.copy()
        for node, reply in replies.items():
            if not 0 <= node < v.shape[1]:
                raise ValueError(f"there are {v.shape[1]} nodes, and a reply came from node {node}")
            if reply.shape != v.shape[:1] or not np.isfinite(reply).all():
                raise ValueError(
                    f"node {node} has to send {len(v)} finite numbers: it sent shape {reply.shape}, "
                    f"{int((~np.isfinite(reply)).sum())} not finite"
                )
            v[:, node] = reply
        return replace(self, v=v)

    def relate(self, *, floor: float) -> MochaServer:
        """Return the server with the relation matrix that its present weights suggest; see `learnt_omega`."""
        omega = learnt_omega(self.weights, floor=floor)
        return replace(self, coupling=Coupling(omega, self.coupling.lambda1, self.coupling.lambda2))

    def dual(self, conjugates: Sequence[float]) -> float:
        """Return D at the duals behind the sums, from the mean L*(-a) that each node reported with its own."""
        return -float(np.sum(conjugates)) - self.coupling.price(self.weights)


def learnt_omega(weights: Array, *, floor: float) -> Array:
    """Return Omega = Sigma^-1, (m, m), for Sigma = (W^T W)^(1/2) / tr(.).

    Of all Sigma of trace 1 this one makes tr(W Omega W^T) smallest. floor in (0, 1]: eigenvalues of Sigma below
    floor / m are raised to it, then all are divided by their sum, so Omega has none above (1 + floor) m / floor.
    Raises ValueError for a floor out of range and for weights that are 0 everywhere, which relate nothing.
    """
    if not 0 < floor <= 1:
        raise ValueError(f"a learnt relation matrix needs 0 < floor <= 1: floor = {floor}")
    squares, vectors = np.linalg.eigh(weights.T @ weights)
    roots = np.sqrt(np.maximum(squares, 0.0))
    if not roots.sum() > 0:
        raise ValueError("a relation matrix cannot be learnt from weights that are 0: learn it after the first round")
    shares = np.maximum(roots / roots.sum(), floor / len(roots))
    omega: Array = (vectors * (shares.sum() / shares)) @ vectors.T
    return (omega + omega.T) / 2
