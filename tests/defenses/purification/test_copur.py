"""CoPur against its theorems, against a slow truth, against itself one sample at a time, and that both stages end."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from thornbed.defenses.autoencoder import Autoencoder
from thornbed.defenses.leverage import certify
from thornbed.defenses.purification import Purified
from thornbed.defenses.purification.copur import copur
from thornbed.defenses.purification.manifold_projection import manifold_projection
from thornbed.defenses.reporting import listening

ALL = torch.ones(7, dtype=torch.bool)
both_solvers = pytest.mark.parametrize("solver", ["gradient", "reweighted"])
LONG = {"steps": 1000, "precision": 1e-6}


def error(result: Purified, truth: Tensor) -> float:
    return float((result.features - truth).flatten(1).norm(dim=1).max())


@both_solvers
@pytest.mark.parametrize("size", [1.0, 1e2, 1e4, 1e8])
def test_below_the_bound_any_corruption_is_undone(solver, size, manifold, points, generator) -> None:
    # Theorem 2: every set of liars that is certified, whatever they send
    tolerated = certify(manifold.last_layer()[0], ALL, generator).tolerated
    assert tolerated >= 2
    sets = list(itertools.combinations(range(7), tolerated))
    truth = points(len(sets))
    sent = truth.clone()
    for row, liars in zip(sent, sets, strict=True):
        row[list(liars)] += size * torch.randn(tolerated, 3, generator=generator, dtype=truth.dtype)
    assert error(copur(sent, ALL, manifold, solver=solver, **LONG), truth) < 1e-4


@both_solvers
def test_missing_blocks_are_recovered_from_those_that_are_there(solver, manifold, points) -> None:
    # Theorem 1: two agents of three numbers each determine a point of a plane
    truth = points(5)
    for pair in [(0, 1), (2, 6), (3, 4)]:
        observed = torch.zeros(7, dtype=torch.bool)
        observed[list(pair)] = True
        sent = torch.where(observed[:, None], truth, torch.nan)
        assert error(copur(sent, observed, manifold, solver=solver, **LONG), truth) < 1e-4


@both_solvers
@pytest.mark.parametrize("size", [1e2, 1e7, 1e30])
def test_in_single_precision_too_who_sends_much_has_no_more_say(solver, size, manifold, points) -> None:
    truth = points(3)
    sent = truth.clone()
    sent[:, 4] *= -size
    observed = ALL.clone()
    observed[2] = False  # which gives the liar more weight
    manifold = manifold.float()
    for heard in (ALL, observed):
        result = copur(sent.float(), heard, manifold, solver=solver)
        assert error(result, truth.float()) < 3e-3
        assert torch.equal(result.usable, heard.expand(3, -1))


@both_solvers
def test_missing_and_lying_at_once(solver, manifold, points, generator) -> None:
    # threat model C
    observed = ALL.clone()
    observed[2] = False
    assert certify(manifold.last_layer()[0], observed, generator).tolerated >= 1
    truth = points(6)
    sent = truth.clone()
    sent[:, 2] = math.nan
    sent[:, 5] *= -1000
    assert error(copur(sent, observed, manifold, solver=solver, **LONG), truth) < 1e-3


def test_the_error_of_projection_grows_with_the_attack_and_that_of_copur_does_not(manifold, points) -> None:
    truth = points(8)
    projected, purified = [], []
    for amplification in (1.0, 10.0, 100.0, 1000.0):
        sent = truth.clone()
        sent[:, 3] = -amplification * truth[:, 3]
        projected.append(error(manifold_projection(sent, ALL, manifold), truth))
        purified.append(error(copur(sent, ALL, manifold, **LONG), truth))
    assert all(after > 5 * before for before, after in itertools.pairwise(projected))
    assert max(purified) < 1e-4


@both_solvers
def test_stage_one_reaches_the_minimum_that_a_general_solver_finds(solver, manifold, points, generator) -> None:
    # off the manifold everywhere, so that nothing is recovered exactly and no block fits
    sent = points(3) + 0.5 * torch.randn(3, 7, 3, generator=generator, dtype=torch.float64)
    observed = ALL.clone()
    observed[0] = False
    (stage,) = copur(sent, observed, manifold, solver=solver, penalty_steps=0, **LONG).stages
    starts = np.random.default_rng(0).standard_normal((3, 2))
    for row, best in zip(sent, stage.best):

        def total(code: np.ndarray, row: Tensor = row) -> float:
            decoded = manifold.decode(torch.from_numpy(code)[None])[0]
            return float((row - decoded)[observed].norm(dim=1).sum())

        slow = min(minimize(total, start, method="Powell", tol=1e-12).fun for start in starts)
        assert float(best) == pytest.approx(slow, rel=1e-6)
    assert bool(stage.converged.all())


def test_two_solvers_find_the_same_point(manifold, points, generator) -> None:
    sent = points(50)
    sent[:, 1:4] += 3 * torch.randn(50, 3, 3, generator=generator, dtype=torch.float64)
    one, two = (
        copur(sent, ALL, manifold, solver=solver, penalty_steps=0, **LONG) for solver in ("gradient", "reweighted")
    )
    torch.testing.assert_close(one.stages[0].best, two.stages[0].best, rtol=1e-5, atol=0)


@both_solvers
def test_a_batch_is_its_samples_one_by_one(solver, manifold, points, generator) -> None:
    sent = points(12)
    sent[:6, :2] *= -10
    sent[3:9] += torch.randn(6, 7, 3, generator=generator, dtype=torch.float64)
    sent[11, 4] = math.inf
    together = copur(sent, ALL, manifold, solver=solver)
    assert len(set(together.stages[0].steps.tolist())) > 1  # each at its own time
    for i, row in enumerate(sent):
        alone = copur(row[None], ALL, manifold, solver=solver)
        torch.testing.assert_close(alone.features[0], together.features[i], rtol=0, atol=1e-5)
        for stage, of_all in zip(alone.stages, together.stages):
            torch.testing.assert_close(stage.best[0], of_all.best[i], rtol=1e-6, atol=1e-6)


@both_solvers
def test_the_course_of_both_stages_is_told(solver, manifold, points) -> None:
    sent = points(5)
    sent[:, 6] += 50
    with listening() as figures:
        result = copur(sent, ALL, manifold, solver=solver, steps=1000)
    assert [stage.name for stage in result.stages] == ["on the manifold", "near the manifold"]
    for stage, steps in zip(result.stages, (1000, 100)):
        assert stage.objective.shape == (steps + 1, 5)
        assert bool(stage.converged.all())
        for sample, taken in enumerate(stage.steps.tolist()):
            assert taken < steps
            course = stage.objective[:, sample]
            assert bool(course[: taken + 1].isfinite().all())
            assert bool(course[taken + 1 :].isnan().all())
            assert float(course[: taken + 1].min()) == pytest.approx(float(stage.best[sample]))
    assert float((result.stages[1].best - result.stages[0].best).max()) < 1e-6
    for number, stage in enumerate(result.stages, start=1):
        assert figures[f"stage{number}_from"] == pytest.approx(float(stage.objective[0].mean()))
        assert figures[f"stage{number}_to"] == pytest.approx(float(stage.best.mean()))
        assert figures[f"stage{number}_slope_from"] == pytest.approx(float(stage.slope[0].mean()))
        assert figures[f"stage{number}_slope_to"] == pytest.approx(float(stage.slope[1].mean()))
    assert figures["stage1_to"] < figures["stage1_from"]
    assert solver != "reweighted" or figures["stage1_slope_to"] < 1e-3 * figures["stage1_slope_from"]
    assert figures["stage1_converged"] == figures["stage2_converged"] == 1
    assert figures["rejected_share"] == 0
    # who lies is seen
    assert result.moved.argmax(dim=1).tolist() == [6] * 5
    assert float(result.moved[:, :6].max()) < 1e-2


@both_solvers
def test_the_slope_is_that_of_the_objective_at_both_ends(solver, manifold, points, generator) -> None:
    sent = points(3) + 0.5 * torch.randn(3, 7, 3, generator=generator, dtype=torch.float64)
    result = copur(sent, ALL, manifold, solver=solver, penalty_steps=0, **LONG)
    (stage,) = result.stages
    # off the manifold everywhere the sum is smooth, so that at its minimum on the manifold nothing is left
    assert float((stage.slope[1] / stage.slope[0]).max()) < 1e-2
    code = manifold.encode(result.features).requires_grad_()
    total = (sent - manifold.decode(code)).norm(dim=2).sum()
    assert float(torch.autograd.grad(total, code)[0].norm(dim=1).max()) < 1e-2


class Parabola(nn.Module):
    """Seven agents that all send (t, t * t): a curve on which no line holds three points; AE(l) = l on it."""

    mean, scale = torch.zeros(7, 2, dtype=torch.float64), torch.ones(7, dtype=torch.float64)

    def forward(self, embeddings: Tensor) -> Tensor:
        turn = embeddings[:, :, 0].mean(dim=1)
        return torch.stack([turn, turn.square()], dim=1)[:, None].expand_as(embeddings)


@pytest.mark.parametrize("size", [1.0, 1e2, 1e6])
def test_on_a_curved_manifold_a_minority_of_liars_is_undone(size, generator) -> None:
    # Theorem 2 beyond subspaces: all blocks of a difference are the same, so three of seven never win
    turn = torch.rand(40, 1, generator=generator, dtype=torch.float64) * 2 - 1
    truth = torch.stack([turn, turn.square()], dim=2).expand(40, 7, 2)
    assert bool(torch.allclose(Parabola()(truth), truth))
    sent = truth.clone()
    sent[:, 4:] += size * torch.randn(40, 3, 2, generator=generator, dtype=torch.float64)
    found = copur(sent, ALL, Parabola(), **LONG)
    assert bool((found.stages[0].best <= found.stages[0].objective[0]).all())
    assert error(found, truth) < 1e-3
    assert error(manifold_projection(sent, ALL, Parabola()), truth) > size / 3


def test_what_has_no_time_to_converge_says_so(manifold, points) -> None:
    sent = points(3)
    sent[:, 6] += 50
    result = copur(sent, ALL, manifold, solver="gradient", steps=3, penalty_steps=0)
    assert not bool(result.stages[0].converged.any())
    assert result.stages[0].steps.tolist() == [3, 3, 3]


def test_stage_two_leaves_the_manifold_only_where_tau_is_small(manifold, points, generator) -> None:
    sent = points(4) + torch.randn(4, 7, 3, generator=generator, dtype=torch.float64)

    def best(tau: float) -> Tensor:
        stages = copur(sent, ALL, manifold, solver="reweighted", tau=tau, penalty_steps=400, penalty_rate=0.1).stages
        assert float((stages[1].best - stages[0].best).max()) < 1e-9  # it begins there, and keeps the best
        return stages[1].best / stages[0].best

    assert float(best(100.0).min()) > 0.9999
    assert float(best(0.1).max()) < 0.5


def test_equivariance_in_the_units_of_the_embeddings(manifold, points) -> None:
    sent = points(4)
    sent[:, :2] *= -10
    larger = Autoencoder(1000 * manifold.mean, 1000 * manifold.scale, 2, torch.Generator())
    larger.load_state_dict({**manifold.state_dict(), "mean": larger.mean, "scale": larger.scale})
    for solver in ("gradient", "reweighted"):
        one, two = copur(sent, ALL, manifold, solver=solver), copur(1000 * sent, ALL, larger, solver=solver)
        torch.testing.assert_close(1000 * one.features, two.features, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("lying", [0, 1])
def test_the_gradient_through_the_search_is_that_of_finite_differences(lying, manifold, points, generator) -> None:
    sent = points(1) + 0.3 * torch.randn(1, 7, 3, generator=generator, dtype=torch.float64)
    sent[:, :lying] *= -10
    direction = torch.randn(sent.shape, generator=generator, dtype=torch.float64)
    options = {"solver": "reweighted", "penalty_steps": 0, "precision": 1e-9, "steps": 2000}

    def along(shift: float) -> Tensor:
        return (copur(sent + shift * direction, ALL, manifold, **options).features * direction.cos()).sum()

    numeric = (along(1e-5) - along(-1e-5)) / 2e-5
    sent.requires_grad_()
    slope = torch.autograd.grad(along(0.0), sent)[0]
    assert float((slope * direction).sum()) == pytest.approx(float(numeric), rel=1e-3)


def test_the_gradient_passes_through_a_descent_and_both_stages(manifold, points) -> None:
    sent = points(2) + 0.1
    sent.requires_grad_()
    options = {"solver": "gradient", "steps": 20, "penalty_steps": 5}
    features = copur(sent, ALL, manifold, **options).features
    slope = torch.autograd.grad(features.sum(), sent)[0]
    assert bool(slope.isfinite().all())
    assert float(slope.abs().sum()) > 0.1
    with torch.no_grad():
        assert not copur(sent, ALL, manifold, **options).features.requires_grad


def test_any_module_is_a_manifold_for_the_descent_and_none_but_affine_ones_for_reweighting(points) -> None:
    class Mean(nn.Module):
        """All agents send the same number: its mean is the projection."""

        mean, scale = torch.zeros(5, 1), torch.ones(5)

        def forward(self, embeddings: Tensor) -> Tensor:
            return embeddings.mean(dim=1, keepdim=True).expand_as(embeddings)

    sent = torch.tensor([[[1.0], [1.0], [1.0], [-50.0], [70.0]]])
    found = copur(sent, torch.ones(5, dtype=torch.bool), Mean(), steps=1000)
    torch.testing.assert_close(found.features, torch.ones(1, 5, 1), atol=1e-3, rtol=0)  # the median
    sentence = r'copur\(solver="reweighted"\) needs an Autoencoder whose decoder is one linear layer'
    deep = Autoencoder(torch.zeros(5, 1), torch.ones(5), 2, torch.Generator(), hidden=(3,))
    for manifold in (Mean(), deep):
        with pytest.raises(ValueError, match=sentence):
            copur(sent, torch.ones(5, dtype=torch.bool), manifold, solver="reweighted")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"solver": "newton"}, "a solver out of auto, gradient, reweighted: solver = newton"),
        ({"tau": 0.0}, "a finite tau > 0: tau = 0.0"),
        ({"rate": math.inf}, "a finite rate > 0: rate = inf"),
        ({"penalty_rate": -1.0}, "a finite penalty_rate > 0: penalty_rate = -1.0"),
        ({"precision": 1.0}, "0 < precision < 1: precision = 1.0"),
        ({"steps": 0}, "1 <= steps <= 100000: steps = 0"),
        ({"steps": 10**12}, "1 <= steps <= 100000: steps = 1000000000000"),
        ({"penalty_steps": -1}, "0 <= penalty_steps <= 100000: penalty_steps = -1"),
    ],
)
def test_options_out_of_range_are_refused(wrong, sentence, manifold, points) -> None:
    with pytest.raises(ValueError, match=f"copur needs {sentence}"):
        copur(points(1), ALL, manifold, **wrong)
