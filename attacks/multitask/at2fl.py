"""Inject points that a search moves so that the targets' models go wrong: directly, through related nodes, or both.

Paper: G. Sun, Y. Cong, J. Dong, Q. Wang, L. Lyu and J. Liu, "Data Poisoning Attacks on Federated Machine Learning",
IEEE Internet of Things Journal 2022, Equations 3 to 16 and Algorithm 1 (AT2FL). What the paper prints and what is
derived here differ: see `gradient`, and the derivation in `attacks/multitask/_gradients.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, get_args

import numpy as np
import torch

from thornbed.attacks import Knowledge
from thornbed.attacks.multitask import (
    Injection,
    Labels,
    Mode,
    NodesView,
    Placing,
    Start,
    injected_at_random,
    into_ball,
    random_twin,
)
from thornbed.attacks.multitask._gradients import as_printed, by_duals, implicit, of_targets, upper
from thornbed.tasks.mocha.algorithm import learnt_omega
from thornbed.tasks.mocha.objective import Coupling
from thornbed.tasks.mocha.solving import Solution, solve, solve_squared
from thornbed.tasks.multitask import Array, Points

NEEDS = frozenset({Knowledge.OWN_DATA, Knowledge.TARGET_DATA, Knowledge.NODES_DATA, Knowledge.RELATIONS})

Gradient = Literal["implicit", "duals", "printed"]
LINEAR_SYSTEM = 2000
"""Up to so many unknowns the squared loss is solved as one linear system, not by passes."""
CLOSE = 1e-3
"""The relative gap to which other problems are solved,"""
COMPARED = 3e-3
"""and that to which searches are compared: closer, no source of landmine or har was taken from another search."""
LEARNT = 5
"""How often relations are learnt from what was solved with the last ones, where searches are compared."""


def at2fl(
    view: NodesView,
    generator: torch.Generator,
    *,
    mode: Mode = "direct",
    ratio: float = 0.2,
    step: float = 0.3,
    radius: float | None = None,
    iterations: int = 60,
    gradient: Gradient | None = None,
    unit: bool = True,
    passes: int | None = None,
    labels: Labels = "flipped",
    start: Start | Literal["both"] = "both",
    balls: int = 4,
    twin: bool = False,
) -> Injection:
    """Return the points of the iteration at which the targets' loss was largest.

    They begin as clean points of the source with other labels (start "clean"), where `random_direct` and its kin leave
    them ("surface"), or once here and once there, and are moved along the gradient and back into the ball: by step *
    radius along each point's own direction with `unit`, by step * gradient without (Equation 4, where the paper has
    step 100). Between moves the duals of all points, injected ones too, follow from where they were: for so many
    `passes` (Algorithm 1 has one; None is five for the hinge), or, as None is for the squared loss and for "implicit",
    to the optimum, which is exact for up to 2,000 unknowns and else has a relative gap of 1e-3, or what 100 passes
    leave of it.

    gradient: "implicit" lets duals follow each point's move, exactly for the squared loss, and for the hinge as long
    as no point crosses the margin; "duals" holds them; "printed" is Equations 14 and 16 to the letter. None is
    "implicit" for the squared loss and "duals" for the hinge, whose duals mostly rest at an end of their range. `mode`,
    `ratio`, `radius` and `labels` are those of `Placing`. The relation matrix is held in a gradient, as in the paper,
    and learnt anew after each solution where the view has a floor.

    The loss has many local maxima, and points that begin far out stay there: the search is made in so many `balls` of
    growing radius, the last of them the whole, each from the same points and labels, and of every source the points
    count that make the loss at the optimum the largest (nobody's but ours). With one ball and one start it is the
    paper's. `twin` is the control: every point that was found is turned into a random direction, at its norm and with
    its label (`random_twin`).
    Raises ValueError for options out of range, and where an indirect attack has too few nodes beside its targets.
    """
    if gradient not in (None, *get_args(Gradient)):
        raise ValueError(f"at2fl has gradient out of {', '.join(get_args(Gradient))}: gradient = {gradient}")
    starts = get_args(Start) if start == "both" else (start,)
    if not set(starts) <= set(get_args(Start)):
        raise ValueError(f"at2fl has start out of {', '.join(get_args(Start))}, both: start = {start}")
    if not 0 < step < math.inf or iterations < 0 or (passes is not None and passes < 1) or balls < 1:
        raise ValueError(
            "at2fl needs a finite step > 0, iterations >= 0, passes >= 1 and balls >= 1: "
            f"step = {step}, iterations = {iterations}, passes = {passes}, balls = {balls}"
        )
    if view.loss == "hinge":
        gradient = gradient or "duals"
        # What holds at an optimum is not taken from afar.
        passes = passes if gradient == "implicit" else passes or 5
    climb = partial(
        _climbed, view, step=step, iterations=iterations, gradient=gradient or "implicit", unit=unit, passes=passes
    )
    state, found = generator.get_state(), []
    for begin in starts:
        placing = Placing(mode=mode, ratio=ratio, radius=radius, labels=labels, start=begin)
        for ball in range(1, balls + 1):
            generator.set_state(state)
            found.append(climb(replace(placing, within=ball / balls), generator))
    best = found[0] if len(found) == 1 or not found[0].points else _mixed(view, found, generator)
    return random_twin(best, view, generator) if twin else best


def _mixed(view: NodesView, found: Sequence[Injection], generator: torch.Generator) -> Injection:
    """Return the search whose loss at the optimum is the largest, with the points of others in sources that gain by it.

    One look at every source and search, one after the other: where sources hardly meet, as in a direct attack, it finds
    the best of each.
    """
    solved = [_settled(each.into(view.points), view, generator, None) for each in found]
    reached = [upper(view, each.weights) for each in solved]
    number = int(np.argmax(reached))
    best, most, duals = found[number], reached[number], solved[number].alphas
    for source in sorted(best.points):
        for other, alone in zip(found, solved):
            if other.points[source] is best.points[source]:
                continue
            tried = replace(best, points={**best.points, source: other.points[source]})
            # Where nodes hardly meet, the source's duals are those it has in the other search: a start close by.
            near = [alone.alphas[node] if node == source else duals[node] for node in range(len(duals))]
            solution = _settled(tried.into(view.points), view, generator, near)
            if (loss := upper(view, solution.weights)) > most:
                best, most, duals = tried, loss, solution.alphas
    return best


def _settled(
    points: Sequence[Points], view: NodesView, generator: torch.Generator, duals: Sequence[Array] | None
) -> Solution:
    """Return the optimum, where relations are learnt after they were so a few times."""
    solution = _lower(points, view.coupling, view, generator, duals, None, COMPARED)
    if view.floor is not None:
        for _ in range(LEARNT):
            coupling = _learnt(view, solution.weights, view.floor)
            solution = _lower(points, coupling, view, generator, solution.alphas, None, COMPARED)
    return solution


def _learnt(view: NodesView, weights: Array, floor: float) -> Coupling:
    return Coupling(learnt_omega(weights, floor=floor), view.coupling.lambda1, view.coupling.lambda2)


def _climbed(
    view: NodesView,
    placing: Placing,
    generator: torch.Generator,
    *,
    step: float,
    iterations: int,
    gradient: Gradient,
    unit: bool,
    passes: int | None,
) -> Injection:
    """Return what one search finds."""
    points = injected_at_random("at2fl", view, placing, generator)
    if not points:
        return Injection(points, np.empty(0))
    radii = {source: placing.radius_of(view.points[source], view) for source in points}
    best = Injection(points, np.empty(0))
    losses: list[float] = []
    coupling, duals = view.coupling, None
    before = {source: np.zeros(len(each)) for source, each in points.items()}
    for iteration in range(iterations + 1):
        current = Injection(points, np.empty(0)).into(view.points)
        solution = _lower(current, coupling, view, generator, duals, passes)
        losses.append(upper(view, solution.weights))
        if int(np.argmax(losses)) == iteration:
            best = Injection(points, np.empty(0), iteration)
        if iteration == iterations:
            break
        duals = solution.alphas
        mine = {source: duals[source][len(view.points[source]) :] for source in points}
        moves = _moves(gradient, view, current, solution, mine, before)
        points = {
            source: Points(
                into_ball(
                    each.x + _stepped(moves[source], view.movable, step, radii[source], unit),
                    view.movable,
                    radii[source],
                ),
                each.y,
            )
            for source, each in points.items()
        }
        before = mine
        if view.floor is not None:
            coupling = _learnt(view, solution.weights, view.floor)
    return replace(best, losses=np.array(losses))


def _lower(
    points: Sequence[Points],
    coupling: Coupling,
    view: NodesView,
    generator: torch.Generator,
    duals: Sequence[Array] | None,
    passes: int | None,
    gap: float = CLOSE,
) -> Solution:
    """Return what the federation would learn from the points, from the duals where it stood."""
    if passes is not None:
        return solve(points, coupling, view.loss, generator, gap=0.0, max_passes=passes, start=duals)
    if view.loss == "squared" and len(points) * points[0].x.shape[1] <= LINEAR_SYSTEM:
        return solve_squared(points, coupling)
    return solve(points, coupling, view.loss, generator, gap=gap, max_passes=100, start=duals)


def _moves(
    gradient: Gradient,
    view: NodesView,
    points: Sequence[Points],
    solution: Solution,
    alphas: dict[int, Array],
    before: dict[int, Array],
) -> dict[int, Array]:
    """Return the gradient of the targets' loss in each injected point, (n, d) by source."""
    if gradient == "printed":
        changes = {source: alpha - before[source] for source, alpha in alphas.items()}
        return as_printed(of_targets(view, solution.weights, printed=True), solution.coupling, changes)
    g = of_targets(view, solution.weights)
    if gradient == "duals":
        return by_duals(g, solution.coupling, alphas, {source: len(points[source]) for source in alphas})
    injected = {source: len(alpha) for source, alpha in alphas.items()}
    return implicit(g, points, injected, solution, view.loss)


def _stepped(move: Array, movable: int, step: float, radius: float, unit: bool) -> Array:
    """Return how far each point moves, (n, d): nothing in the intercept, nothing for a point without a gradient."""
    free = move.copy()
    free[:, movable:] = 0
    if not unit:
        return step * free
    norms = np.linalg.norm(free, axis=1, keepdims=True)
    return free * np.where(norms > 0, step * radius / np.where(norms > 0, norms, 1.0), 0.0)
