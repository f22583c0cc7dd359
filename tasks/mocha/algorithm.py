"""MOCHA's algorithm: what a node does in a round, and what the server makes of it.

Paper: Smith et al., "Federated Multi-Task Learning", NeurIPS 2017, Algorithm 1 and Equation 4; Shalev-Shwartz and
Zhang, "Stochastic Dual Coordinate Ascent Methods for Regularized Loss Minimization", JMLR 2013, for the steps of a
node; Zhang and Yeung, "A Convex Formulation for Learning Task Relationships in Multi-Task Learning", UAI 2010, Section
3, for the relation matrix.

With w the weights that came from the server, node l raises

    -(1/n) sum_i L*(-(a_i + c_i)) - w . u - (sigma' K[l, l] / 2) |u|^2,   u = (1/n) sum_i c_i x_i,

one c_i at a time, each to its exact maximum. sigma' makes the sum of all nodes' answers raise the dual, whatever the
others do, so nobody has to wait: a node may do any part of its work, or none. In Equations 12 and 13 of Sun et al.
(2022) the inner product is x . x a; the derivative of the line above has x . w, with w the weights as they move.

d numbers go to each node (its weights) and d come back (its summed duals); beside them goes one, the curvature of its
local problem. The server puts the sums together and learns how the nodes are related; it has no point of any node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from thornbed.tasks.mocha.ascent import ascend
from thornbed.tasks.mocha.objective import Coupling, conjugates, losses
from thornbed.tasks.multitask import Array, Loss, Points


@dataclass(frozen=True, eq=False)
class LocalWork:
    """What a node has after its work: `alpha` (n,) stays with it, `v` (d,) goes to the server.

    `v` is the sum of all its duals and not of their change, so that a reply that is lost does no harm: the next one
    carries all of it. `conjugate` is the mean of L*(-a) of the same duals: whoever has both of all nodes, however old,
    has the dual there. `loss` is its mean loss at the weights it was sent.
    """

    alpha: Array
    v: Array
    loss: float
    conjugate: float


def local_work(
    points: Points,
    alpha: Array,
    w: Array,
    curvature: float,
    loss: Loss,
    generator: torch.Generator,
    *,
    passes: float = 1.0,
    held: Array | None = None,
) -> LocalWork:
    """Return the node's work after so many passes over its points, in an order drawn anew for each pass.

    alpha (n,): its duals, 0 at first. w (d,): the weights it was sent. curvature: sigma' K[l, l], sent with them.
    passes >= 0: 0.5 is a straggler that reaches half of its points, 0 one that does nothing; infinitely many are, for
    the squared loss, one linear system of d unknowns. held (d,): the sum of the node's duals that is in w, where that
    is not the sum of alpha: a reply was lost, points were left out, or the duals were; the same problem is then solved
    from another start.
    Raises ValueError for other shapes, for a curvature or passes out of range, and for the hinge's infinitely many.
    """
    n, d = points.x.shape
    if alpha.shape != (n,) or w.shape != (d,) or (held is not None and held.shape != (d,)):
        raise ValueError(f"a node with {n} points of {d} features has n duals and d weights: {alpha.shape}, {w.shape}")
    if not (0 < curvature < np.inf and passes >= 0):
        raise ValueError(f"local work needs curvature > 0 and passes >= 0: {curvature = }, {passes = }")
    if passes == np.inf and loss == "hinge":
        raise ValueError("local work on the hinge needs a number of passes: passes = inf is for the squared loss")
    x = np.ascontiguousarray(points.x)
    # Where the weights would be with the duals of alpha in the place of those that are in them.
    moved = np.array(w, dtype=np.float64)
    if held is not None:
        moved += curvature * (x.T @ alpha / n - held)
    if passes == np.inf:
        after = _highest(points, alpha, moved, curvature)
    else:
        after = np.array(alpha, dtype=np.float64)
        ascend(x, points.y, after, moved, curvature / n, loss == "hinge", _order(n, round(passes * n), generator))
    return LocalWork(
        alpha=after,
        v=x.T @ after / n,
        loss=float(losses(loss, x, points.y, w).mean()),
        conjugate=float(conjugates(loss, after, points.y).mean()),
    )


def _highest(points: Points, alpha: Array, w: Array, curvature: float) -> Array:
    """Return the duals that no pass can raise: 2 (y - X w'), where w' = w + curvature (v - v of alpha) is theirs."""
    n, d = points.x.shape
    gram = points.x.T @ points.x * (2 * curvature / n)
    pull = points.x.T @ (2 * points.y - alpha) * (curvature / n)
    moved = np.linalg.solve(np.eye(d) + gram, w + pull)
    return np.asarray(2 * (points.y - points.x @ moved), dtype=np.float64)


def _order(n: int, steps: int, generator: torch.Generator) -> NDArray[np.int64]:
    """Return `steps` rows out of n, in one permutation after the other."""
    rounds = [torch.randperm(n, generator=generator).numpy() for _ in range(-(-steps // n))]
    return np.concatenate(rounds)[:steps] if rounds else np.empty(0, np.int64)


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
