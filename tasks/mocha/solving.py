"""Solving the whole objective: round by round as a federation does, and at one place as an attacker or a test does.

What multitask learning is compared with is solved too, every node for itself and one model for all, and models are
judged.

Paper: Smith et al., "Federated Multi-Task Learning", NeurIPS 2017, Algorithm 1, for the rounds; Table 1 (local, global,
MTL).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from thornbed.tasks.mocha.algorithm import MochaServer, local_work
from thornbed.tasks.mocha.ascent import sweep
from thornbed.tasks.mocha.objective import Coupling, dual, primal, summed_duals
from thornbed.tasks.multitask import Array, Loss, Node, Points


@dataclass(frozen=True, eq=False)
class Solution:
    """The duals (n_l,) of each node and the weights (d, m) that follow, with the objective they belong to.

    `factors` are those of `curvature_factors`, where the solution came from them: the next system costs nothing then.
    """

    points: Sequence[Points]
    coupling: Coupling
    loss: Loss
    weights: Array
    alphas: tuple[Array, ...]
    passes: int
    factors: tuple[Array, bool] | None = None

    @cached_property
    def primal(self) -> float:
        """F at the weights."""
        return primal(self.points, self.weights, self.coupling, self.loss)

    @cached_property
    def dual(self) -> float:
        """D at the duals."""
        return dual(self.points, self.alphas, self.coupling, self.loss, self.weights)

    @property
    def gap(self) -> float:
        """F - D; no weights have an F that is smaller by more."""
        return self.primal - self.dual


def solve(
    points: Sequence[Points],
    coupling: Coupling,
    loss: Loss,
    generator: torch.Generator,
    *,
    gap: float = 1e-6,
    max_passes: int = 10_000,
    start: Sequence[Array] | None = None,
) -> Solution:
    """Return weights whose duality gap is at most `gap` times F, or those after `max_passes`: look at their `gap`.

    Coordinate ascent over all nodes' points; after a node's points the weights of all others follow, so it needs fewer
    passes than a federation, whose nodes learn of each other once a round. `start`: duals to begin with, 0 by default.
    Raises ValueError where the nodes are not as many as the coupling's.
    """
    m = len(coupling.omega)
    if len(points) != m:
        raise ValueError(f"a relation matrix of {m} nodes needs as many nodes: there are {len(points)}")
    x = np.concatenate([each.x for each in points])
    y = np.concatenate([each.y for each in points])
    ends = np.cumsum([0, *(len(each) for each in points)])
    alpha = np.zeros(len(y)) if start is None else np.concatenate(list(start))
    if alpha.shape != y.shape:
        raise ValueError(f"there is a dual for each point: {len(y)} points, {len(alpha)} duals")
    passes = 0
    while True:
        alphas = tuple(np.split(alpha, ends[1:-1]))
        found = Solution(points, coupling, loss, coupling.weights(summed_duals(points, alphas)), alphas, passes)
        # Nobody looks at the gap where only the number of passes counts: it takes longer than a pass.
        if passes >= max_passes or (gap > 0 and found.gap <= gap * found.primal):
            return found
        # The sums are made anew at each look at the gap, so rounding does not pile up.
        rows = np.ascontiguousarray(found.weights.T)
        for _ in range(min(max(1, passes // 4) if gap > 0 else max_passes, max_passes - passes)):
            sweep(x, y, ends, alpha, rows, coupling.influence, loss == "hinge", _within(ends, generator))
            passes += 1


def solve_squared(points: Sequence[Points], coupling: Coupling, *, max_size: int = 5000) -> Solution:
    """Return the exact optimum for the squared loss, from one linear system of d * m unknowns.

    Raises ValueError where those are more than `max_size`, whose matrix would be of that size squared.
    """
    factors = curvature_factors(points, coupling, max_size=max_size)
    right = np.concatenate([2 * each.x.T @ each.y / len(each) for each in points])
    weights = np.ascontiguousarray(cho_solve(factors, right).reshape(len(points), -1).T)
    alphas = tuple(2 * (each.y - each.x @ weights[:, node]) for node, each in enumerate(points))
    return Solution(points, coupling, "squared", weights, alphas, 0, factors)


def curvature_factors(points: Sequence[Points], coupling: Coupling, *, max_size: int = 5000) -> tuple[Array, bool]:
    """Return the Cholesky factors of the second derivative of F for the squared loss, node by node, (d m, d m)."""
    m, d = len(points), points[0].x.shape[1]
    if m != len(coupling.omega):
        raise ValueError(f"a relation matrix of {len(coupling.omega)} nodes needs as many nodes: there are {m}")
    if m * d > max_size:
        raise ValueError(f"the linear system of {m} nodes and {d} features has {m * d} unknowns: at most {max_size}")
    curved = np.zeros((m, d, m, d))
    for feature in range(d):
        curved[:, feature, :, feature] = 2 * coupling.penalty
    for node, each in enumerate(points):
        curved[node, :, node] += 2 * each.x.T @ each.x / len(each)
    # It is symmetric: transposed it lies as LAPACK wants it, and is not copied.
    factors: tuple[Array, bool] = cho_factor(curved.reshape(m * d, m * d).T, overwrite_a=True, check_finite=False)
    return factors


@dataclass(frozen=True, eq=False)
class Federated:
    """What rounds of MOCHA gave: the server, the duals of each node, and F and D after each round, (rounds + 1,)."""

    server: MochaServer
    alphas: tuple[Array, ...]
    primals: Array
    duals: Array


def federate(
    points: Sequence[Points],
    coupling: Coupling,
    loss: Loss,
    generator: torch.Generator,
    *,
    rounds: int,
    passes: float | Callable[[int, int], float] = 1.0,
    learn_every: int = 0,
    floor: float = 0.1,
    safety: float | None = None,
) -> Federated:
    """Return what rounds of MOCHA give, without any engine.

    `passes`: of local work, or a function of round (from 1) and node that says how many; a node with 0 drops out of the
    round. `learn_every`: the relation matrix is learnt after so many rounds, 0 never; F is then that of the new one.
    """
    if rounds < 0 or learn_every < 0:
        raise ValueError(f"MOCHA needs rounds and learn_every >= 0: rounds = {rounds}, learn_every = {learn_every}")
    server = MochaServer(np.zeros((points[0].x.shape[1], len(points))), coupling, safety)
    alphas = [np.zeros(len(each)) for each in points]
    values = [_values(points, alphas, server.coupling, loss)]
    for current in range(1, rounds + 1):
        weights, curvatures, replies = server.weights, server.curvatures, {}
        for node, each in enumerate(points):
            share = passes(current, node) if callable(passes) else passes
            if share == 0:
                continue
            work = local_work(each, alphas[node], weights[:, node], curvatures[node], loss, generator, passes=share)
            alphas[node], replies[node] = work.alpha, work.v
        server = server.receive(replies)
        if learn_every and current % learn_every == 0:
            server = server.relate(floor=floor)
        values.append(_values(points, alphas, server.coupling, loss))
    primals, duals = np.array(values).T
    return Federated(server, tuple(alphas), primals, duals)


def _values(points: Sequence[Points], alphas: Sequence[Array], coupling: Coupling, loss: Loss) -> tuple[float, float]:
    weights = coupling.weights(summed_duals(points, alphas))
    return primal(points, weights, coupling, loss), dual(points, alphas, coupling, loss, weights)


def _within(ends: NDArray[np.int64], generator: torch.Generator) -> NDArray[np.int64]:
    """Return for each node a permutation of its rows, one after the other."""
    orders = [torch.randperm(int(size), generator=generator).numpy() for size in np.diff(ends)]
    return np.concatenate(orders)


def local_only(
    points: Sequence[Points], loss: Loss, generator: torch.Generator, *, penalty: float, gap: float = 1e-6
) -> Array:
    """Return weights (d, m), each of which minimises its node's mean loss + penalty * |w|^2, for penalty > 0."""
    alone = Coupling(np.eye(len(points)), 0.0, penalty)
    return solve(points, alone, loss, generator, gap=gap).weights


def global_model(
    points: Sequence[Points], loss: Loss, generator: torch.Generator, *, penalty: float, gap: float = 1e-6
) -> Array:
    """Return weights (d, m) with m equal columns that minimise the mean loss over all points + penalty * |w|^2."""
    pooled = Points(np.concatenate([each.x for each in points]), np.concatenate([each.y for each in points]))
    weights = solve([pooled], Coupling(np.eye(1), 0.0, penalty), loss, generator, gap=gap).weights
    return np.repeat(weights, len(points), axis=1)


def errors(points: Sequence[Points], weights: Array, loss: Loss) -> Array:
    """Return for each node (m,) its error rate in [0, 1], or its root mean square error for the squared loss.

    A point on the boundary counts as wrong whatever its label.
    """
    scores = []
    for node, each in enumerate(points):
        z = each.x @ weights[:, node]
        scores.append(np.mean(each.y * z <= 0) if loss == "hinge" else np.sqrt(np.mean(np.square(z - each.y))))
    return np.array(scores)


def errors_by_node(nodes: Sequence[Node], weights: Array, loss: Loss) -> Array:
    """Return the error of each node on its test points, (m,): of one that pools others, the mean of theirs."""
    return np.array(
        [
            errors(parts, np.repeat(weights[:, [number]], len(parts), axis=1), loss).mean()
            for number, node in enumerate(nodes)
            for parts in [node.pools or (node.test,)]
        ]
    )
