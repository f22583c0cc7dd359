"""Primal, dual and coupling: by hand, in the order that duality gives, and with sentences for what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from thornbed.tasks.mocha.objective import (
    Coupling,
    conjugates,
    dual,
    duality_gap,
    losses,
    primal,
    summed_duals,
    unrelated,
)
from thornbed.tasks.multitask import Points

ONE = Points(np.array([[2.0]]), np.array([1.0]))


def test_two_nodes_by_hand():
    """Omega = [[1, -1], [-1, 1]] / 2, lambda1 = 2, lambda2 = 1: A = [[2, -1], [-1, 2]], K = [[2, 1], [1, 2]] / 6."""
    coupling = Coupling(unrelated(2), 2.0, 1.0)
    np.testing.assert_allclose(coupling.penalty, [[2, -1], [-1, 2]])
    np.testing.assert_allclose(coupling.influence, np.array([[2, 1], [1, 2]]) / 6)
    assert coupling.safety == pytest.approx(1.5)
    points, alphas = (ONE, ONE), (np.array([3.0]), np.array([0.0]))
    v = summed_duals(points, alphas)
    np.testing.assert_allclose(v, [[6, 0]])
    np.testing.assert_allclose(coupling.weights(v), [[2, 1]])
    # losses (4 - 1)^2 and (2 - 1)^2, price 2 * 4 + 2 * 1 - 2 * 2 = 6; conjugates -3 + 9 / 4 and 0
    assert primal(points, np.array([[2.0, 1.0]]), coupling, "squared") == pytest.approx(16)
    assert dual(points, alphas, coupling, "squared") == pytest.approx(0.75 - 6)
    assert duality_gap(points, alphas, coupling, "squared") == pytest.approx(21.25)


def test_losses_and_conjugates_by_hand():
    x, y, w = np.array([[2.0], [0.25], [-1.0]]), np.array([1.0, 1.0, -1.0]), np.array([1.0])
    assert losses("hinge", x, y, w).tolist() == [0.0, 0.75, 0.0]
    assert losses("squared", x, y, w).tolist() == [1.0, 0.5625, 0.0]
    assert conjugates("hinge", np.array([0.5, 1.5, 0.5]), y).tolist() == [-0.5, np.inf, np.inf]
    assert conjugates("squared", np.array([2.0, 0.0, -2.0]), y).tolist() == [-1.0, 0.0, -1.0]


@pytest.mark.parametrize("loss", ["hinge", "squared"])
def test_every_dual_is_below_every_primal(federation, coupling, loss):
    points, related, rng = federation(loss), coupling(), np.random.default_rng(1)
    for scale in (0.1, 1.0, 10.0):
        weights = scale * rng.normal(size=(3, 4))
        alphas = [each.y * rng.uniform(size=len(each)) for each in points]
        assert dual(points, alphas, related, loss) < primal(points, weights, related, loss)


def test_a_price_is_the_trace_and_the_safety_is_safe():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(5, 5))
    coupling = Coupling(root @ root.T, 0.7, 0.1)
    weights = rng.normal(size=(3, 5))
    expected = 0.7 * np.trace(weights @ coupling.omega @ weights.T) + 0.1 * np.sum(weights**2)
    assert coupling.price(weights) == pytest.approx(expected)
    spread = coupling.safety * np.diag(np.diag(coupling.influence)) - coupling.influence
    eigenvalues = np.linalg.eigvalsh(spread)
    assert eigenvalues[0] == pytest.approx(0, abs=1e-12 * eigenvalues[-1])
    lemma9 = np.abs(coupling.influence).sum(axis=1) / np.diag(coupling.influence)
    assert 1 < coupling.safety <= lemma9.max()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Coupling(np.ones((2, 3)), 1.0, 1.0), r"shape \(m, m\): it has shape \(2, 3\)"),
        (lambda: Coupling(np.array([[1.0, 2.0], [0.0, 1.0]]), 1.0, 1.0), "finite and symmetric"),
        (lambda: Coupling(np.array([[np.nan]]), 1.0, 1.0), "finite and symmetric"),
        (lambda: Coupling(np.eye(2), -1.0, 1.0), "lambda1 = -1.0, lambda2 = 1.0"),
        (lambda: Coupling(unrelated(3), 1.0, 0.0), "positive definite: its eigenvalues go from"),
        (lambda: Points(np.ones((2, 3)), np.ones(3)), r"shapes \(2, 3\) and \(3,\)"),
        (lambda: Points(np.ones((0, 3)), np.ones(0)), "n, d >= 1"),
        (lambda: Points(np.ones((2, 3), dtype=np.float32), np.ones(2)), "x is float32, y is float64"),
        (lambda: Points(np.ones((2, 1)), np.array([1.0, np.inf])), r"row 1 is not \(1 such of 2\)"),
    ],
)
def test_what_is_wrong_is_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
