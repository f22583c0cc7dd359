"""How the targets' loss changes with an injected point, by what is taken to follow from the point's move.

Paper: Sun et al., "Data Poisoning Attacks on Federated Machine Learning", IEEE Internet of Things Journal 2022,
Equations 6, 14 and 16. With W = V K (`tasks.mocha.objective`) and N_s points in source s, of which x is injected and
has dual a, the weights of target t are w_t = K[t, s] a x / N_s + what does not hold x. So at given duals

    d H / d x = (a / N_s) sum_t K[t, s] g_t,   g_t = d L_t / d w_t,

which is `by_duals`. The paper prints the last change of a for a, Omega[t, s] for K[t, s] and no 1 / N_s; for the
hinge its g_t lacks the minus sign and the indicator of the points that have a loss at all: `as_printed`.
Duals follow when x moves. At an optimum of the squared loss they keep a_i / 2 = y_i - w . x_i, and for the hinge those
of points on the margin keep y_i w . x_i = 1 while all others rest: `implicit` differentiates these too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from thornbed.attacks.multitask import NodesView
from thornbed.tasks.mocha.objective import Coupling, losses
from thornbed.tasks.mocha.solving import Solution, curvature_factors
from thornbed.tasks.multitask import Array, Loss, Points

FREE = 1e-6
"""A hinge dual is on the margin when y a is farther than this from 0 and from 1."""


def upper(view: NodesView, weights: Array) -> float:
    """Return the sum over targets of their mean loss on their clean training points, at weights (d, m)."""
    clean = ((view.points[target], weights[:, target]) for target in view.targets)
    return float(sum(losses(view.loss, points.x, points.y, w).mean() for points, w in clean))


def of_targets(view: NodesView, weights: Array, *, printed: bool = False) -> Array:
    """Return the derivative of `upper` in the weights, (d, m), 0 for nodes that are no targets."""
    g = np.zeros_like(weights)
    for target in view.targets:
        points, w = view.points[target], weights[:, target]
        z = points.x @ w
        if view.loss == "squared":
            slope = 2 * (z - points.y)
        else:
            slope = points.y if printed else -points.y * (points.y * z < 1)
        g[:, target] = points.x.T @ slope / len(points)
    return g


def by_duals(g: Array, coupling: Coupling, alphas: Mapping[int, Array], sizes: Mapping[int, int]) -> dict[int, Array]:
    """Return d H / d x, (n, d), by source, where duals stay: `alphas` of its injected points, `sizes` N_s of all.

    This is what an attacker in a running federation can compute: the targets' gradients g, its duals, and K.
    """
    pulls = g @ coupling.influence
    return {source: np.outer(alpha / sizes[source], pulls[:, source]) for source, alpha in alphas.items()}


def as_printed(g: Array, coupling: Coupling, changes: Mapping[int, Array]) -> dict[int, Array]:
    """Return what Equations 14 and 16 print, (n, d) by source, of the last changes (n,) of the injected duals."""
    pulls = g @ coupling.omega
    return {source: np.outer(change, pulls[:, source]) for source, change in changes.items()}


def implicit(
    g: Array,
    points: Sequence[Points],
    injected: Mapping[int, int],
    solution: Solution,
    loss: Loss,
) -> dict[int, Array]:
    """Return d H / d x, (n, d) by source, with all duals following: `injected` says how many points come last in it.

    points: of all nodes, the injected ones included; solution: theirs, at the optimum. With Q p' = g, Q the second
    derivative of F, the squared loss has d H / d x = (a / N_s) p'_s - u w_s, u = (2 / N_s) x . p'_s. For the hinge,
    with p = G K and Q[i, j] = K[l_i, l_j] x_i . x_j over the points on the margin, Q u = x_i . p_i,
    p'_s = p_s - sum_i u_i K[l_i, s] x_i, and u is 0 for the others: the derivative where no point crosses the margin.
    """
    follow = _follow_squared if loss == "squared" else _follow_hinge
    pulls, shares = follow(g, points, solution)
    found = {}
    for source, count in injected.items():
        last = slice(len(points[source]) - count, None)
        found[source] = np.outer(solution.alphas[source][last] / len(points[source]), pulls[:, source])
        found[source] -= np.outer(shares[source][last], solution.weights[:, source])
    return found


def _follow_squared(g: Array, points: Sequence[Points], solution: Solution) -> tuple[Array, list[Array]]:
    """Return p' (d, m) and by node u (N,)."""
    factors = solution.factors or curvature_factors(points, solution.coupling)
    pulls = cho_solve(factors, g.T.ravel()).reshape(g.T.shape).T
    return pulls, [2 / len(each) * each.x @ pulls[:, node] for node, each in enumerate(points)]


def _follow_hinge(g: Array, points: Sequence[Points], solution: Solution) -> tuple[Array, list[Array]]:
    """Return p' (d, m) and by node u (N,)."""
    influence = solution.coupling.influence
    pulls, shares = g @ influence, [np.zeros(len(each)) for each in points]
    rows = [np.flatnonzero(np.abs(each.y * alpha - 0.5) < 0.5 - FREE) for each, alpha in zip(points, solution.alphas)]
    owner = np.repeat(np.arange(len(points)), [len(kept) for kept in rows])
    if not len(owner):
        return pulls, shares
    x = np.concatenate([each.x[kept] for each, kept in zip(points, rows)])
    system = (x @ x.T) * influence[np.ix_(owner, owner)]
    # More points on a margin than features are dependent: the smallest solution, near enough.
    system[np.diag_indices_from(system)] += 1e-10 * np.trace(system) / len(system)
    solved = cho_solve(cho_factor(system), np.einsum("nd,dn->n", x, pulls[:, owner]))
    for node, kept in enumerate(rows):
        shares[node][kept] = solved[owner == node]
    taken = np.column_stack([each.x.T @ share for each, share in zip(points, shares)])
    return pulls - taken @ influence, shares
