"""The search: it raises what it is to raise, goes where it is sent, and beats its twin of equal norm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from thornbed.attacks.multitask import Injection, NodesView, into_ball, random_twin
from thornbed.attacks.multitask._gradients import upper
from thornbed.attacks.multitask.at2fl import at2fl
from thornbed.attacks.multitask.random_direct import random_direct
from thornbed.attacks.multitask.random_hybrid import random_hybrid
from thornbed.attacks.multitask.random_indirect import random_indirect
from thornbed.tasks.mocha.algorithm import learnt_omega
from thornbed.tasks.mocha.objective import Coupling, unrelated
from thornbed.tasks.mocha.solving import solve, solve_squared
from thornbed.tasks.multitask import Points

ONE: dict[str, Any] = {"start": "clean", "balls": 1}  # one search
RANDOM = {"direct": random_direct, "indirect": random_indirect, "hybrid": random_hybrid}


def harm(view: NodesView, injection: Injection) -> float:
    """Return the targets' loss when the federation has learnt from the injected points."""
    points = injection.into(view.points)
    return upper(view, solve(points, view.coupling, view.loss, torch.Generator().manual_seed(0), gap=1e-8).weights)


@pytest.mark.parametrize("mode", ["direct", "indirect", "hybrid"])
@pytest.mark.parametrize("loss", ["hinge", "squared"])
def test_the_loss_rises_beyond_that_of_a_random_twin(view, generator, mode, loss):
    seen = view(loss)
    found = at2fl(seen, generator, mode=mode, iterations=15, **ONE)
    assert found.losses.shape == (16,)
    assert found.best_iteration == int(found.losses.argmax()) > 0
    assert harm(seen, found) == pytest.approx(found.losses.max(), rel=0.02)
    twins = [harm(seen, random_twin(found, seen, torch.Generator().manual_seed(seed))) for seed in range(3)]
    assert harm(seen, found) > max(twins)


@pytest.mark.parametrize("mode", ["direct", "indirect", "hybrid"])
def test_it_begins_where_the_random_attack_of_its_kind_ends(view, mode):
    seen = view("squared", m=6)
    started = at2fl(seen, torch.Generator().manual_seed(3), mode=mode, iterations=0, **ONE | {"start": "surface"})
    drawn = RANDOM[mode](seen, torch.Generator().manual_seed(3))
    assert started.points.keys() == drawn.points.keys()
    for source, points in drawn.points.items():
        assert np.array_equal(points.x, started.points[source].x)
        assert np.array_equal(points.y, started.points[source].y)


@pytest.mark.parametrize("mode", ["direct", "indirect", "hybrid"])
@pytest.mark.parametrize("loss", ["hinge", "squared"])
def test_of_several_searches_every_source_has_what_harms_most(view, mode, loss):
    seen = view(loss, m=6)
    several = at2fl(seen, torch.Generator().manual_seed(0), mode=mode, iterations=8, balls=2)
    each = [
        at2fl(seen, torch.Generator().manual_seed(0), mode=mode, iterations=8, balls=1, start=start)
        for start in ("clean", "surface")
    ]
    assert several.points.keys() == each[0].points.keys() == each[1].points.keys()
    # The searches in the whole ball are two of the four, and a mean loss is within what is left of the hinge's gap.
    assert harm(seen, several) >= max(harm(seen, one) for one in each) * 0.99


@pytest.mark.parametrize("mode", ["indirect", "hybrid"])
def test_searches_are_compared_with_relations_as_they_are_learnt(view, mode):
    seen = view("squared", m=6, floor=0.1, coupling=Coupling(unrelated(6), 0.3, 0.05))
    options = {"mode": mode, "iterations": 8, "balls": 1}
    several = at2fl(seen, torch.Generator().manual_seed(0), **options)
    each = [at2fl(seen, torch.Generator().manual_seed(0), start=start, **options) for start in ("clean", "surface")]

    def settled(injection: Injection) -> float:
        points = injection.into(seen.points)
        solution = solve_squared(points, seen.coupling)
        for _ in range(20):
            solution = solve_squared(points, Coupling(learnt_omega(solution.weights, floor=0.1), 0.3, 0.05))
        return upper(seen, solution.weights)

    assert settled(several) >= max(map(settled, each)) * 0.99


def test_an_attacker_who_holds_some_nodes_takes_these(view):
    seen = view("squared", m=6, targets=(0, 1), sources=(3, 4, 5))
    assert set(random_indirect(seen, torch.Generator()).points) == {3, 4, 5}
    assert set(at2fl(seen, torch.Generator(), mode="hybrid", iterations=1).points) == {3, 4, 5}
    with pytest.raises(ValueError, match=r"at2fl is direct, so its sources are its targets: sources = \(3, 4, 5\)"):
        at2fl(seen, torch.Generator())
    with pytest.raises(ValueError, match="random_indirect is indirect, so its sources are none of its targets"):
        random_indirect(view("squared", m=6, targets=(0, 1), sources=(1, 2)), torch.Generator())
    with pytest.raises(ValueError, match=r"sources are nodes from 0 to 3: sources = \(7,\)"):
        view("squared", sources=(7,))


def test_sources_are_where_the_mode_says(view):
    seen = view("squared", m=8)
    drawn = {
        mode: [set(RANDOM[mode](seen, torch.Generator().manual_seed(seed)).points) for seed in range(20)]
        for mode in RANDOM
    }
    assert all(sources == {0, 1, 2, 3} for sources in drawn["direct"])
    assert all(sources == {4, 5, 6, 7} for sources in drawn["indirect"])
    assert all(len(sources) == 4 for sources in drawn["hybrid"])
    assert len({frozenset(sources) for sources in drawn["hybrid"]}) > 5
    with pytest.raises(ValueError, match=r"at2fl needs as many nodes .*: 3 targets of 4 nodes"):
        at2fl(view("squared", targets=(0, 1, 2)), torch.Generator(), mode="indirect")


def test_labels_are_turned_copied_or_drawn(view, generator):
    hinge, squared = view("hinge", m=2), view("squared", m=2)
    low, high = squared.span
    assert (low, high) == (min(p.y.min() for p in squared.points), max(p.y.max() for p in squared.points))
    clean = squared.points[0].y
    (copied,) = random_direct(squared, generator, labels="copied", ratio=1.0).points.values()
    (turned,) = random_direct(squared, generator, labels="flipped", ratio=1.0).points.values()
    (drawn,) = random_direct(squared, generator, labels="random", ratio=1.0).points.values()
    assert set(copied.y) <= set(clean)
    assert all(np.isclose(low + high - label, clean).any() for label in turned.y)
    assert ((drawn.y >= low) & (drawn.y <= high)).all()
    assert len(set(drawn.y)) == len(clean)
    (turned,) = random_direct(hinge, torch.Generator().manual_seed(0), labels="flipped").points.values()
    (copied,) = random_direct(hinge, torch.Generator().manual_seed(0), labels="copied").points.values()
    assert np.array_equal(turned.y, -copied.y)


def test_a_search_begins_with_clean_points_of_its_sources_within_the_ball(view):
    seen = view("squared")
    for radius in (50.0, 1.0):
        begun = at2fl(seen, torch.Generator().manual_seed(0), mode="indirect", radius=radius, iterations=0, **ONE)
        for source, points in begun.points.items():
            clean = into_ball(seen.points[source].x, 3, radius)
            assert all((row == clean).all(axis=1).any() for row in points.x)
    with pytest.raises(ValueError, match="start out of clean, surface, both: start = far"):
        at2fl(seen, torch.Generator(), start="far")


def test_a_twin_has_the_nodes_labels_and_norms_and_other_directions(view, generator):
    seen = view("squared")
    found = at2fl(seen, generator, iterations=3)
    twin = random_twin(found, seen, generator)
    assert twin.points.keys() == found.points.keys()
    for source, points in found.points.items():
        other = twin.points[source]
        assert np.array_equal(other.y, points.y)
        np.testing.assert_allclose(*(np.linalg.norm(each.x[:, :3], axis=1) for each in (points, other)))
        assert (other.x[:, 3] == 1).all()
        assert not np.allclose(other.x, points.x)


def test_the_ball_shortens_what_is_longer_and_nothing_else():
    x = np.array([[3.0, 4.0, 1.0], [0.3, 0.4, 1.0], [0.0, 0.0, 1.0]])
    inside = into_ball(x, 2, 1.0)
    np.testing.assert_allclose(inside, [[0.6, 0.8, 1], [0.3, 0.4, 1], [0, 0, 1]])
    assert np.array_equal(inside[1:], x[1:])
    assert np.linalg.norm(inside[0, :2]) <= 1


def test_a_step_is_a_share_of_the_radius_or_of_the_gradient(view):
    seen = view("squared")
    kept = {"radius": 2.0, "iterations": 1, "step": 1e-3, **ONE}
    begun = at2fl(seen, torch.Generator().manual_seed(0), **{**kept, "iterations": 0})
    unit = at2fl(seen, torch.Generator().manual_seed(0), **kept)
    plain = [
        at2fl(seen, torch.Generator().manual_seed(0), **{**kept, "step": step}, unit=False) for step in (1e-4, 2e-4)
    ]
    assert unit.best_iteration == plain[0].best_iteration == 1
    moved = unit.points[0].x - begun.points[0].x
    # A point on the surface loses what leads out of the ball.
    assert (np.linalg.norm(moved, axis=1) <= 2e-3 + 1e-9).all()
    assert np.linalg.norm(moved, axis=1).max() > 1e-3
    first, second = (each.points[0].x - begun.points[0].x for each in plain)
    np.testing.assert_allclose(second, 2 * first, rtol=0.01, atol=1e-8)


def test_unrelated_nodes_cannot_be_reached_indirectly(view, generator):
    seen = view("squared", coupling=Coupling(np.eye(4), 0.3, 0.05))
    found = at2fl(seen, generator, mode="indirect", iterations=5)
    assert np.ptp(found.losses) == pytest.approx(0, abs=1e-12)
    related = view("squared", coupling=Coupling(unrelated(4), 10.0, 0.05))
    assert np.ptp(at2fl(related, generator, mode="indirect", iterations=5).losses) > 0.01


@pytest.mark.parametrize("options", [{"gradient": "printed"}, {"gradient": "duals"}, {"passes": 1}])
def test_the_papers_ways_run_and_keep_their_best(view, generator, options):
    seen = view("hinge")
    found = at2fl(seen, generator, iterations=8, **ONE, **options)
    # The points that come back are those of the best iteration, of whose loss an exact solver knows.
    assert found.best_iteration == int(found.losses.argmax())
    if "passes" not in options:
        assert harm(seen, found) == pytest.approx(found.losses.max(), rel=0.02)
    assert np.isfinite(found.losses).all()
    # As printed, the hinge's derivative lacks its sign: that leads downhill.
    first, last = found.losses[[0, -1]]
    assert last < first if options.get("gradient") == "printed" else found.losses.max() > first


def test_what_holds_at_an_optimum_is_taken_there(view):
    """For the hinge, too, the implicit gradient's duals are those of a solved problem, unless passes say otherwise."""
    found = [
        at2fl(view("hinge"), torch.Generator().manual_seed(0), gradient="implicit", iterations=0, passes=passes, **ONE)
        for passes in (None, 1, 100)
    ]
    solved, early, late = (each.losses[0] for each in found)
    assert abs(solved - late) < abs(early - late)


def test_the_relations_are_learnt_anew_where_the_federation_does(view):
    fixed, learning = (
        at2fl(view("squared", floor=floor), torch.Generator().manual_seed(0), iterations=3, **ONE)
        for floor in (None, 0.1)
    )
    assert fixed.losses[0] == learning.losses[0]
    assert (fixed.losses[1:] != learning.losses[1:]).all()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"mode": "both"}, "at2fl has mode out of direct, indirect, hybrid: mode = both"),
        ({"gradient": "true"}, "gradient out of implicit, duals, printed: gradient = true"),
        ({"step": 0.0}, "step = 0.0, iterations = 60, passes = None"),
        ({"iterations": -1}, "step = 0.3, iterations = -1"),
        ({"passes": 0}, "passes = 0"),
    ],
)
def test_options_out_of_range_are_refused(view, generator, wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        at2fl(view("hinge"), generator, **wrong)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"targets": ()}, "at least one target"),
        ({"targets": (0, 0)}, r"each once: targets = \(0, 0\)"),
        ({"targets": (4,)}, r"from 0 to 3: targets = \(4,\)"),
        ({"coupling": Coupling(np.eye(2), 1.0, 1.0)}, "matrix of 2 nodes, and points of 4"),
        ({"points": (Points(np.ones((2, 2)), np.ones(2)),) * 3}, "matrix of 4 nodes, and points of 3"),
    ],
)
def test_a_view_that_contradicts_itself_is_refused(view, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        view("hinge", **change)


def test_seven_of_a_hundred_points_are_seven(generator):
    """0.07 * 100 is more than 7 in floats."""
    nodes = tuple(Points(np.ones((100, 3)), np.arange(100.0)) for _ in range(2))
    view = NodesView(
        points=nodes, targets=(0,), loss="squared", coupling=Coupling(unrelated(2), 0.3, 0.05), intercept=True
    )
    assert [len(each) for each in random_direct(view, generator, ratio=0.07).points.values()] == [7]
