"""That copur's point is the minimum the theorems speak of, and that it says by how much it may not be."""

from __future__ import annotations

import pytest
import torch

from tests.defenses.purification.test_copur import ALL, LONG, Parabola, both_solvers, error
from thornbed.defenses.autoencoder import Autoencoder
from thornbed.defenses.autoencoder_fit import fit_autoencoder
from thornbed.defenses.leverage import certify
from thornbed.defenses.purification.copur import copur
from thornbed.defenses.purification.manifold_projection import manifold_projection
from thornbed.defenses.reporting import listening


def projected(weight: torch.Tensor) -> Autoencoder:
    """Return the autoencoder of mean 0 and scale 1 that projects on the range of a weight (M, d, k)."""
    agents, dim, rank = weight.shape
    mean, scale = torch.zeros(agents, dim, dtype=weight.dtype), torch.ones(agents, dtype=weight.dtype)
    made = Autoencoder(mean, scale, rank, torch.Generator())
    with torch.no_grad():
        made.output.weight.copy_(weight.flatten(0, 1))
        made.encoder[-1].weight.copy_(torch.linalg.pinv(weight.flatten(0, 1)))
    return made.requires_grad_(False)


@both_solvers
def test_an_honest_agent_is_not_taken_for_a_liar_because_it_is_loud(solver, generator) -> None:
    # Theorem 1: a point of the manifold comes back, however unlike agents are, and where most of them say nothing
    codes = torch.randn(200, 2, generator=generator, dtype=torch.float64)
    weight = torch.randn(7, 3, 2, generator=generator, dtype=torch.float64)
    for scales in ((1.0, 1.0, 1.0, 1.0, 1.0, 1e3, 1e3), (0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0)):
        rows = torch.einsum("mdk,nk->nmd", torch.tensor(scales, dtype=torch.float64)[:, None, None] * weight, codes)
        made = fit_autoencoder(rows, generator, bottleneck=2).autoencoder
        found = copur(rows[:20], ALL, made, solver=solver, **LONG)
        assert error(found, rows[:20]) < 1e-3 * max(scales)
        assert float(found.stages[0].best.max()) < 1e-3 * max(scales)


def test_the_minimum_is_no_lower_than_the_gap_says(manifold, points, generator) -> None:
    sent = points(20) + 0.5 * torch.randn(20, 7, 3, generator=generator, dtype=torch.float64)
    sent[:, :3] *= -10
    (done,) = copur(sent, ALL, manifold, solver="reweighted", penalty_steps=0, **LONG).stages
    assert float((done.gap / done.best).max()) < 1e-6
    for steps in (1, 3, 10):
        (early,) = copur(sent, ALL, manifold, solver="reweighted", penalty_steps=0, steps=steps).stages
        assert bool((early.best - early.gap <= done.best + 1e-9).all())
        assert bool((early.best >= done.best - done.gap - 1e-9).all())
        assert steps == 10 or float((early.gap / early.best).max()) > 1e-3  # and it says that it is not there yet
    both = copur(sent, ALL, manifold, solver="reweighted", tau=1.0)
    assert float((both.gap / both.stages[1].best).max()) < 1e-5  # stage two has the same minimum
    assert bool(copur(sent, ALL, manifold, solver="reweighted", tau=0.5).gap.isnan().all())
    assert bool(copur(sent, ALL, manifold, solver="gradient").gap.isnan().all())


def test_without_stage_two_features_are_those_of_the_minimum(points, generator) -> None:
    # of a curved autoencoder AE(AE(l)) is another point than AE(l)
    made = fit_autoencoder(points(100), generator, bottleneck=2, hidden=(20,), epochs=5).autoencoder
    sent = points(6) + 0.5 * torch.randn(6, 7, 3, generator=generator, dtype=torch.float64)
    found = copur(sent, ALL, made, penalty_steps=0)
    assert error(manifold_projection(found.features, ALL, made), found.features) > 1e-3
    torch.testing.assert_close((sent - found.features).norm(dim=2).sum(dim=1), found.stages[0].best)


def test_the_solver_is_the_exact_one_where_there_is_one(manifold, points, generator) -> None:
    sent = points(4) + torch.randn(4, 7, 3, generator=generator, dtype=torch.float64)
    for made, solver in ((manifold, "reweighted"), (Parabola(), "gradient")):
        given = sent if made is manifold else sent[:, :, :2]
        assert torch.equal(copur(given, ALL, made).features, copur(given, ALL, made, solver=solver).features)


def test_a_liar_too_large_for_single_precision_is_the_one_that_moved(manifold, points) -> None:
    sent = points(5).float()
    sent[:, 2] = 1e25
    with listening() as told:
        found = copur(sent, ALL, manifold.float())
    assert told["moved_share"] == pytest.approx(1 / 7)
    assert bool((found.moved[:, 2] > 1e25).all())
    assert bool(found.moved.isfinite().all())


@pytest.mark.parametrize(("size", "clipped"), [(1.0, 0), (1e8, 4)])
def test_honest_blocks_so_far_away_that_they_are_clipped_are_told_and_count_as_liars(size, clipped, generator) -> None:
    # Nine agents of one number each; four of them also see a second direction. One liar is tolerated.
    weight = torch.ones(9, 1, 2, dtype=torch.float64)
    weight[4:, :, 1] = 0
    manifold = projected(weight)
    assert certify(manifold.last_layer()[0], torch.ones(9, dtype=torch.bool), generator).tolerated == 1
    truth = manifold.decode(torch.tensor([[0.0, size]], dtype=torch.float64)).detach()
    found = copur(truth, torch.ones(9, dtype=torch.bool), manifold)
    assert int(found.clipped.sum()) == clipped
    recovered = error(found, truth) < 1e-6 * size
    assert recovered == (clipped <= 1)  # a theorem that counts clipped blocks promises nothing of four


def test_a_liar_of_any_size_is_all_that_is_clipped(manifold, points) -> None:
    sent = points(20)
    assert not bool(copur(sent, ALL, manifold).clipped.any())
    sent[:, 3] *= 1e9
    with listening() as figures:
        found = copur(sent, ALL, manifold)
    assert found.clipped.nonzero()[:, 1].tolist() == [3] * 20
    assert figures["clipped_share"] == pytest.approx(1 / 7)


@both_solvers
def test_directions_that_nobody_tells_of_stay_at_the_mean_whoever_else_is_in_the_batch(solver, generator) -> None:
    # Five numbers of a code, and three agents of one number each that are heard.
    manifold = projected(torch.randn(10, 1, 5, generator=generator, dtype=torch.float64))
    observed = torch.arange(10) < 3
    sent = torch.randn(30, 10, 1, generator=generator, dtype=torch.float64)
    with listening() as figures:
        whole = copur(sent, observed, manifold, solver=solver, penalty_steps=0, **LONG)
    for row in range(30):
        alone = copur(sent[row : row + 1], observed, manifold, solver=solver, penalty_steps=0, **LONG)
        torch.testing.assert_close(whole.features[row], alone.features[0], rtol=1e-5, atol=1e-5)
    if solver == "reweighted":
        basis = manifold.last_layer()[0][:, 0]
        codes = torch.linalg.lstsq(basis[observed], sent[:, observed, 0].T).solution  # of least length
        torch.testing.assert_close(whole.features[:, :, 0], (basis @ codes).T, rtol=1e-4, atol=1e-4)
        assert figures["stage1_gap"] < 1e-3
