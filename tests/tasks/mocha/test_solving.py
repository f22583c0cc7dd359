"""The solver against independent ones, round by round and at one place, with stragglers and drop-outs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import LinearConstraint, minimize
from sklearn.linear_model import Ridge
from sklearn.svm import SVC

from thornbed.tasks.mocha.algorithm import MochaServer, learnt_omega, local_work
from thornbed.tasks.mocha.objective import Coupling, dual, duality_gap, primal, summed_duals
from thornbed.tasks.mocha.solving import errors, federate, global_model, local_only, solve, solve_squared
from thornbed.tasks.multitask import Points

ROUNDING = 1e-12  # where a run has converged, primal and dual are one number but for their last digits


@pytest.mark.parametrize("loss", ["hinge", "squared"])
def test_the_gap_closes_to_a_millionth(federation, coupling, generator, loss):
    found = solve(federation(loss), coupling(), loss, generator, gap=1e-6)
    assert -ROUNDING <= found.gap <= 1e-6 * found.primal
    assert found.gap == pytest.approx(duality_gap(federation(loss), found.alphas, coupling(), loss), abs=1e-12)
    rounds = federate(federation(loss), coupling(), loss, generator, rounds=400 if loss == "hinge" else 150)
    assert -ROUNDING <= rounds.primals[-1] - rounds.duals[-1] <= 1e-6 * rounds.primals[-1]


def test_the_squared_optimum_is_that_of_scipy(federation, coupling, generator):
    points, related = federation("squared"), coupling()
    found = minimize(
        lambda flat: primal(points, flat.reshape(3, 4), related, "squared"), np.zeros(12), method="BFGS", tol=1e-9
    )
    for ours in (solve(points, related, "squared", generator, gap=1e-12), solve_squared(points, related)):
        np.testing.assert_allclose(ours.weights, found.x.reshape(3, 4), atol=1e-4)
        assert ours.primal == pytest.approx(found.fun, rel=1e-8)


def test_the_hinge_dual_is_that_of_a_quadratic_program(federation, coupling, generator):
    """Written out as one quadratic form in all duals, and given to a solver that knows nothing of nodes."""
    points, related = federation("hinge", n=6), coupling()
    owner = np.repeat(np.arange(4), [len(each) for each in points])
    x, y = np.concatenate([each.x for each in points]), np.concatenate([each.y for each in points])
    share = 1 / np.bincount(owner)[owner]
    z = x * (y * share)[:, None]
    quadratic = (z @ z.T) * related.influence[np.ix_(owner, owner)]
    box = LinearConstraint(np.eye(len(y)), 0, 1)
    found = minimize(
        lambda a: 0.5 * a @ quadratic @ a - share @ a,
        np.full(len(y), 0.5),
        jac=lambda a: quadratic @ a - share,
        hess=lambda a: quadratic,
        method="trust-constr",
        constraints=box,
        options={"gtol": 1e-10, "xtol": 1e-12, "maxiter": 2000},
    )
    ours = solve(points, related, "hinge", generator, gap=1e-10)
    assert ours.dual == pytest.approx(-found.fun, rel=1e-4)
    alphas = [(found.x * y)[owner == node] for node in range(4)]
    np.testing.assert_allclose(ours.weights, related.weights(summed_duals(points, alphas)), atol=1e-4)


def test_one_node_is_ridge_regression(federation, generator):
    (one,) = federation("squared", m=1, n=30)
    found = solve([one], Coupling(np.eye(1), 0.3, 0.2), "squared", generator, gap=1e-12)
    ridge = Ridge(alpha=0.5 * len(one), fit_intercept=False).fit(one.x, one.y)
    np.testing.assert_allclose(found.weights[:, 0], ridge.coef_, atol=1e-5)


def test_one_node_is_a_support_vector_machine(federation, generator):
    (one,) = federation("hinge", m=1, n=30)
    # (1/n) sum of hinges + c |w|^2 is, over 2 c, what an SVM of C = 1 / (2 c n) minimises; the intercept is a column
    # of its own there and unpenalised, so it is taken out by mirroring the points.
    found = solve([one], Coupling(np.eye(1), 0.03, 0.02), "hinge", generator, gap=1e-10)
    mirrored = np.concatenate([one.x, -one.x]), np.concatenate([one.y, -one.y])
    machine = SVC(kernel="linear", C=1 / (2 * 0.05 * 2 * len(one)), tol=1e-10).fit(*mirrored)
    np.testing.assert_allclose(found.weights[:, 0], machine.coef_[0], atol=1e-5)


@pytest.mark.parametrize("loss", ["hinge", "squared"])
def test_rounds_never_lower_the_dual_whoever_works_how_much(federation, coupling, generator, loss):
    points, related = federation(loss, m=6), coupling(6, lambda1=1.0, lambda2=0.01)
    rng = np.random.default_rng(0)
    shares = rng.choice([0.0, 0.1, 0.5, 3.0], size=(41, 6))
    rounds = federate(points, related, loss, generator, rounds=40, passes=lambda step, node: float(shares[step, node]))
    assert (np.diff(rounds.duals) > -ROUNDING).all()
    assert rounds.duals[-1] > rounds.duals[0]
    # adding up without sigma' overshoots, which is what it is for
    reckless = federate(points, related, "squared", generator, rounds=20, passes=3.0, safety=1.0)
    assert (np.diff(reckless.duals) < 0).any()


def test_a_node_that_drops_out_of_half_the_rounds_still_converges(federation, coupling, generator):
    points, related = federation("squared"), coupling()
    best = solve_squared(points, related)
    rounds = federate(
        points, related, "squared", generator, rounds=300, passes=lambda step, node: float(node != 1 or step % 2)
    )
    assert rounds.primals[-1] - rounds.duals[-1] <= 1e-6 * rounds.primals[-1]
    np.testing.assert_allclose(rounds.server.weights, best.weights, atol=1e-4)
    never = federate(points, related, "squared", generator, rounds=300, passes=lambda step, node: float(node != 1))
    assert never.primals[-1] - never.duals[-1] > 0.1


def test_d_numbers_go_each_way_and_a_lost_reply_does_no_harm(federation, coupling, generator):
    points, related = federation("hinge"), coupling()
    server, alpha = MochaServer(np.zeros((3, 4)), related), np.zeros(len(points[0]))
    for round_ in range(3):
        sent = server.weights[:, 0]
        assert sent.shape == (3,)
        work = local_work(points[0], alpha, sent, server.curvatures[0], "hinge", generator)
        alpha = work.alpha
        assert work.v.shape == (3,)
        if round_ != 1:  # that reply is lost, and the next carries its work
            server = server.receive({0: work.v})
    np.testing.assert_allclose(server.v[:, 0], points[0].x.T @ alpha / len(points[0]))
    assert (server.v[:, 1:] == 0).all()


def test_the_server_knows_the_dual_from_one_number_of_each_node(federation, coupling, generator):
    points, related = federation("hinge"), coupling()
    rounds = federate(points, related, "hinge", generator, rounds=5)
    weights = rounds.server.weights
    works = [
        local_work(each, rounds.alphas[node], weights[:, node], 1.0, "hinge", generator, passes=0)
        for node, each in enumerate(points)
    ]
    below = rounds.server.dual([work.conjugate for work in works])
    assert below == pytest.approx(dual(points, rounds.alphas, related, "hinge"))


@pytest.mark.parametrize("loss", ["hinge", "squared"])
def test_a_node_that_starts_elsewhere_solves_the_same_problem(federation, coupling, generator, loss):
    """Its answer depends on the duals that are in its weights, and not on those it begins with."""
    points = federation(loss)
    rounds = federate(points, coupling(), loss, generator, rounds=3)
    w, curvature = rounds.server.weights[:, 0], rounds.server.curvatures[0]
    own = local_work(points[0], rounds.alphas[0], w, curvature, loss, generator, passes=3000)
    lost = np.zeros(len(points[0]))
    other = local_work(points[0], lost, w, curvature, loss, generator, passes=3000, held=rounds.server.v[:, 0])
    np.testing.assert_allclose(other.v, own.v, atol=1e-6)


def test_local_work_raises_each_dual_to_its_maximum(generator):
    """One point: x = 2, y = 1, curvature 0.5, so q = 0.5 * 4 = 2; squared (1 - 0.5 * 2) / (0.5 + 2), hinge 0 / 2."""
    one = Points(np.array([[2.0]]), np.array([1.0]))
    squared = local_work(one, np.zeros(1), np.array([0.25]), 0.5, "squared", generator)
    assert squared.alpha[0] == pytest.approx((1 - 0.5) / 2.5)
    assert squared.v[0] == pytest.approx(2 * 0.2)
    assert squared.loss == 0.25
    assert squared.conjugate == pytest.approx(-0.2 + 0.2**2 / 4)
    hinge = local_work(one, np.zeros(1), np.array([0.25]), 0.5, "hinge", generator)
    assert hinge.alpha[0] == pytest.approx(0.25)
    far = local_work(one, np.zeros(1), np.array([-5.0]), 0.5, "hinge", generator)
    assert far.alpha[0] == 1.0
    origin = local_work(Points(np.zeros((1, 1)), -np.ones(1)), np.zeros(1), np.ones(1), 0.5, "hinge", generator)
    assert origin.alpha[0] == -1.0


def test_infinitely_many_passes_are_what_many_passes_come_to(federation, generator):
    (points,) = federation("squared", m=1, n=20)
    start, w = generator_duals(points), np.array([0.5, -1.0, 2.0])
    many, all_ = (local_work(points, start, w, 0.7, "squared", generator, passes=passes) for passes in (2000.0, np.inf))
    np.testing.assert_allclose(all_.alpha, many.alpha, atol=1e-8)
    np.testing.assert_allclose(all_.v, many.v, atol=1e-8)
    with pytest.raises(ValueError, match="passes = inf is for the squared loss"):
        local_work(federation("hinge", m=1)[0], np.zeros(12), w, 0.7, "hinge", generator, passes=np.inf)


def generator_duals(points: Points) -> np.ndarray:
    return np.random.default_rng(0).normal(size=len(points))


def test_a_straggler_reaches_the_part_it_says(federation, generator):
    points = federation("squared", m=1, n=40)[0]
    for passes, reached in ((0.0, 0), (0.25, 10), (0.5, 20), (1.0, 40), (1.5, 40)):
        work = local_work(points, np.zeros(40), np.zeros(3), 0.1, "squared", generator, passes=passes)
        assert np.count_nonzero(work.alpha) == reached


def test_the_learnt_relation_matrix(coupling):
    """Orthogonal columns of lengths 3 and 1: Sigma = diag(3/4, 1/4); a floor of 0.8 raises 1/4 to 0.4 of 1.15."""
    weights = np.array([[3.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(learnt_omega(weights, floor=0.1), np.diag([4 / 3, 4]), atol=1e-12)
    np.testing.assert_allclose(learnt_omega(weights, floor=0.8), np.diag([1.15 / 0.75, 1.15 / 0.4]), atol=1e-12)
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(3, 5))  # of rank 3, so two eigenvalues are the floor's
    eigenvalues = np.linalg.eigvalsh(learnt_omega(wide, floor=0.01))
    assert eigenvalues[-1] == pytest.approx(5 / 0.01, rel=0.01)
    assert eigenvalues[-2] == pytest.approx(eigenvalues[-1])
    assert (1 / eigenvalues).sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="learn it after the first round"):
        learnt_omega(np.zeros((3, 2)), floor=0.1)
    with pytest.raises(ValueError, match="0 < floor <= 1: floor = 0"):
        learnt_omega(weights, floor=0)


def test_learning_the_relations_lowers_the_objective_for_its_weights(federation, coupling, generator):
    """Sigma minimises tr(W Omega W^T) at trace 1, so no other relation of trace 1 is cheaper for these weights."""
    points = federation("squared")
    rounds = federate(points, coupling(), "squared", generator, rounds=30, learn_every=10, floor=0.05)
    weights, omega = rounds.server.weights, learnt_omega(rounds.server.weights, floor=1e-6)
    cheapest = np.trace(weights @ omega @ weights.T)
    rng = np.random.default_rng(0)
    for _ in range(20):
        root = rng.normal(size=(4, 4))
        other = root @ root.T
        assert cheapest < np.trace(weights @ np.linalg.inv(other / np.trace(other)) @ weights.T) + 1e-9
    # The relation is that of the weights before the last learning, and the gap closes around it.
    assert not np.allclose(rounds.server.coupling.omega, coupling().omega)
    again = federate(points, rounds.server.coupling, "squared", generator, rounds=200)
    assert again.primals[-1] - again.duals[-1] <= 1e-6 * again.primals[-1]


def test_baselines_are_the_two_ends(federation, generator):
    points = federation("squared")
    alone = local_only(points, "squared", generator, penalty=0.1, gap=1e-12)
    for node, each in enumerate(points):
        ridge = Ridge(alpha=0.1 * len(each), fit_intercept=False).fit(each.x, each.y)
        np.testing.assert_allclose(alone[:, node], ridge.coef_, atol=1e-5)
    together = global_model(points, "squared", generator, penalty=0.1, gap=1e-12)
    x, y = np.concatenate([each.x for each in points]), np.concatenate([each.y for each in points])
    for column in together.T:
        np.testing.assert_allclose(column, Ridge(alpha=0.1 * len(y), fit_intercept=False).fit(x, y).coef_, atol=1e-5)


def test_errors_by_hand():
    points = (Points(np.array([[1.0], [2.0], [-1.0]]), np.array([1.0, -1.0, -1.0])),)
    assert errors(points, np.array([[3.0]]), "hinge").tolist() == [1 / 3]
    assert errors(points, np.array([[0.0]]), "hinge").tolist() == [1.0]
    assert errors(points, np.array([[1.0]]), "squared") == pytest.approx(np.sqrt([(0 + 9 + 0) / 3]))


def test_input_and_global_randomness_are_left_alone(federation, coupling, generator):
    points, before = federation("hinge"), torch.random.get_rng_state()
    copies = [(each.x.copy(), each.y.copy()) for each in points]
    alphas = [np.zeros(len(each)) for each in points]
    solve(points, coupling(), "hinge", generator, start=alphas)
    local_work(points[0], alphas[0], np.zeros(3), 1.0, "hinge", generator)
    assert all((alpha == 0).all() for alpha in alphas)
    assert all((each.x == x).all() and (each.y == y).all() for each, (x, y) in zip(points, copies))
    assert torch.equal(before, torch.random.get_rng_state())
    found = [
        solve(points, coupling(), "hinge", torch.Generator().manual_seed(seed), max_passes=3).weights
        for seed in (0, 0, 1)
    ]
    assert (found[0] == found[1]).all()
    assert (found[0] != found[2]).any()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda p, c, g: solve(p[:3], c, "hinge", g), "4 nodes needs as many nodes: there are 3"),
        (lambda p, c, g: solve(p, c, "hinge", g, start=[np.zeros(1)]), "66 points, 1 duals"),
        (lambda p, c, g: solve_squared(p, c, max_size=11), "has 12 unknowns: at most 11"),
        (lambda p, c, g: federate(p, c, "hinge", g, rounds=-1), "rounds = -1, learn_every = 0"),
        (lambda p, c, g: local_work(p[0], np.zeros(2), np.zeros(3), 1.0, "hinge", g), "12 points of 3 features"),
        (lambda p, c, g: local_work(p[0], np.zeros(12), np.zeros(3), 0.0, "hinge", g), "curvature = 0.0"),
        (lambda p, c, g: MochaServer(np.zeros((3, 5)), c), r"server of 4 nodes .* shape \(3, 5\)"),
        (lambda p, c, g: MochaServer(np.zeros((3, 4)), c).receive({7: np.zeros(3)}), "4 nodes, .* from node 7"),
        (
            lambda p, c, g: MochaServer(np.zeros((3, 4)), c).receive({2: np.array([0, np.nan, 1])}),
            "node 2 .* 1 not finite",
        ),
        (lambda p, c, g: MochaServer(np.zeros((3, 4)), c).receive({2: np.zeros(2)}), r"node 2 .* shape \(2,\)"),
    ],
)
def test_what_is_wrong_is_refused(federation, coupling, generator, call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(federation("hinge"), coupling(), generator)
