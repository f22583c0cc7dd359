"""Every gradient against finite differences of what it says that it differentiates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from thornbed.attacks.multitask import Injection, NodesView, Placing
from thornbed.attacks.multitask._gradients import FREE, as_printed, by_duals, implicit, of_targets, upper
from thornbed.tasks.mocha.objective import summed_duals
from thornbed.tasks.mocha.solving import solve, solve_squared
from thornbed.tasks.multitask import Points

ROWS, STEP = 3, 1e-5


def injected(view: NodesView, source: int, x: np.ndarray, y: np.ndarray) -> tuple[Points, ...]:
    return Injection({source: Points(x, y)}, np.empty(0)).into(view.points)


def differences(value, x: np.ndarray) -> np.ndarray:
    """Return central differences of value(x) in each entry of x."""
    found = np.empty_like(x)
    for index in np.ndindex(*x.shape):
        moved = np.zeros_like(x)
        moved[index] = STEP
        found[index] = (value(x + moved) - value(x - moved)) / (2 * STEP)
    return found


def start(view: NodesView, source: int) -> Points:
    placing = Placing(mode="direct", ratio=0.2, radius=2.0, labels="flipped", start="surface")
    return placing.place(view, source, torch.Generator().manual_seed(1)).select(np.arange(ROWS))


@pytest.mark.parametrize("source", [0, 1, 3])  # into a target, into the other, beside both
def test_the_squared_loss_has_the_exact_hypergradient(view, source):
    seen, first = view("squared"), start(view("squared"), source)

    def value(x: np.ndarray) -> float:
        return upper(seen, solve_squared(injected(seen, source, x, first.y), seen.coupling).weights)

    points = injected(seen, source, first.x, first.y)
    solution = solve_squared(points, seen.coupling)
    g = of_targets(seen, solution.weights)
    ours = implicit(g, points, {source: ROWS}, solution, "squared")[source]
    expected = differences(value, first.x)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    # held duals are another derivative, and not this one
    held = by_duals(g, seen.coupling, {source: solution.alphas[source][-ROWS:]}, {source: len(points[source])})[source]
    assert np.abs(held - expected).max() > 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("source", [0, 3])
def test_the_hinge_has_it_as_long_as_no_point_crosses_the_margin(view, source):
    seen = view("hinge", m=4, seed=3)
    # clean labels and a small ball: then some injected points lie on the margin
    rng = np.random.default_rng(1)
    x = np.column_stack([rng.normal(size=(12, 3)), np.ones(12)])
    y = np.where(rng.random(12) < 0.5, 1.0, -1.0)

    def solved(x: np.ndarray):
        points = injected(seen, source, x, y)
        return points, solve(
            points, seen.coupling, "hinge", torch.Generator().manual_seed(0), gap=1e-13, max_passes=30_000
        )

    points, solution = solved(x)
    duals = np.abs(solution.alphas[source][-12:] * y - 0.5)
    assert (duals < 0.5 - FREE).any()
    assert (duals > 0.5 - FREE).any()
    ours = implicit(of_targets(seen, solution.weights), points, {source: 12}, solution, "hinge")[source]
    expected = differences(lambda moved: upper(seen, solved(moved)[1].weights), x)
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize("loss", ["hinge", "squared"])
@pytest.mark.parametrize("source", [0, 3])
def test_held_duals_give_the_derivative_of_the_sum_they_make(view, loss, source, generator):
    seen, first = view(loss), start(view(loss), source)
    points = injected(seen, source, first.x, first.y)
    solution = solve(points, seen.coupling, loss, generator, gap=1e-4)

    def value(x: np.ndarray) -> float:
        moved = injected(seen, source, x, first.y)
        return upper(seen, seen.coupling.weights(summed_duals(moved, solution.alphas)))

    alphas = {source: solution.alphas[source][-ROWS:]}
    ours = by_duals(of_targets(seen, solution.weights), seen.coupling, alphas, {source: len(points[source])})[source]
    expected = differences(value, first.x)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("loss", ["hinge", "squared"])
def test_the_targets_gradient_is_the_derivative_of_the_upper_objective(view, loss):
    seen, weights = view(loss), np.random.default_rng(0).normal(size=(4, 4))
    g = of_targets(seen, weights)
    np.testing.assert_allclose(g, differences(lambda moved: upper(seen, moved), weights), rtol=1e-5, atol=1e-8)
    assert (g[:, 2:] == 0).all()


def test_what_is_printed_is_the_letter_of_the_equations(view):
    """One target with one point x = (2, 1), y = 1 and w = (3, 0): 2 (6 - 1) x, times the change, times Omega[t, s]."""
    made = view("squared", m=2, d=1, targets=(0,))
    one = Points(np.array([[2.0, 1.0]]), np.array([1.0]))
    seen = NodesView(**{**vars(made), "points": (one, one)})
    weights = np.array([[3.0, 9.0], [0.0, 9.0]])
    printed = as_printed(of_targets(seen, weights, printed=True), seen.coupling, {1: np.array([0.5, -1.0])})
    np.testing.assert_allclose(printed[1], [[10 * 2 * 0.5 * -0.5, 10 * 0.5 * -0.5], [10 * 2 * 0.5, 10 * 0.5]])
    hinge = NodesView(**{**vars(seen), "loss": "hinge"})
    np.testing.assert_allclose(of_targets(hinge, weights, printed=True)[:, 0], [2, 1])
    assert (of_targets(hinge, weights) == 0).all()  # 1 * 6 is beyond the margin
