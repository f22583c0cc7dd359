"""What defenses beside the rules keep to on any numbers: ties, zeros, and numbers of very different sizes."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from thornbed.defenses.perturbation.local_dp import local_dp
from thornbed.defenses.perturbation.top_k import top_k
from thornbed.defenses.relations.bounded_influence import bounded_influence
from thornbed.defenses.relations.rank_relations import rank_relations
from thornbed.defenses.trimming.distance_trimming import distance_trimming
from thornbed.defenses.trimming.loss_trimming import loss_trimming
from thornbed.defenses.vertical import clipped

HOW = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
NIGHTLY = pytest.mark.parametrize("count", [50, pytest.param(1000, marks=pytest.mark.nightly)])
NUMBERS = st.one_of(st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-30, 1e-45, 1e30, -1e30]), st.floats(-10, 10, width=32))
PERCENT = st.integers(1, 99)
SUBNORMAL = 1e-43  # below it a float32 has a digit or two


def vectors() -> st.SearchStrategy[Tensor]:
    return st.lists(NUMBERS, min_size=1, max_size=40).map(lambda numbers: torch.tensor(numbers, dtype=torch.float32))


@NIGHTLY
def test_local_dp_without_noise_shortens_to_the_norm_and_leaves_the_rest_as_it_is(count: int):
    @settings(HOW, max_examples=count)
    @given(update=vectors(), part=st.sampled_from([0.01, 0.7, 0.99, 1.01, 10.0]))
    def check(update: Tensor, part: float) -> None:
        before, length = update.clone(), float(update.double().norm())
        norm = part * length or 1.0
        found = local_dp(update, torch.Generator(), clip_norm=norm, noise_multiplier=0.0).double()
        assert torch.equal(update, before)
        assert float(found.norm()) <= 1.0001 * norm + SUBNORMAL
        if length <= norm:
            assert torch.equal(found, update.double())
        else:
            torch.testing.assert_close(
                found, update.double() * (norm / length), rtol=1e-5, atol=1e-6 * norm + SUBNORMAL
            )

    check()


@NIGHTLY
def test_top_k_keeps_so_many_of_the_largest_as_they_are(count: int):
    @settings(HOW, max_examples=count)
    @given(update=vectors(), share=PERCENT)
    def check(update: Tensor, share: int) -> None:
        before = update.clone()
        found = top_k(update, torch.Generator(), share=share / 100)
        assert torch.equal(update, before)
        kept = found != 0
        assert torch.equal(found[kept], update[kept])
        number = max(1, round(share / 100 * len(update)))
        assert int(kept.sum()) == min(number, int((update != 0).sum()))
        if bool(kept.any()):
            assert _largest(update[~kept]) <= float(found[kept].abs().min())

    check()


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if len(values) else 0.0


@NIGHTLY
@pytest.mark.parametrize("defense", [distance_trimming, loss_trimming])
def test_trimming_takes_the_share_that_it_says_whatever_the_points(defense, count: int):
    @settings(HOW, max_examples=count)
    @given(size=st.tuples(st.integers(1, 120), st.integers(1, 5), st.integers(0, 999)), share=PERCENT)
    def check(size: tuple[int, int, int], share: int) -> None:
        n, d, seed = size
        source = np.random.default_rng(seed)
        x = source.integers(-3, 4, (n, d)) * source.choice([1.0, 1e6], (n, 1))  # ties, and a few far away
        y, w = np.where(source.random(n) < 0.3, 1.0, -1.0), source.normal(size=d)
        given_points = x.copy(), y.copy(), w.copy()
        kept = defense(x, y, w, "hinge", share=share / 100)
        assert all(np.array_equal(one, other) for one, other in zip((x, y, w), given_points, strict=True))
        assert n - kept.sum() == min(math.ceil(Fraction(share, 100) * n), n - 1)

    check()


def test_seven_of_a_hundred_points_are_seven():
    """0.07 * 100 is more than 7 in floats."""
    x = np.arange(100.0)[:, None]
    kept = distance_trimming(x, np.ones(100), np.ones(1), "squared", share=0.07)
    assert (~kept).sum() == 7


@NIGHTLY
def test_blocks_are_no_longer_than_the_median_and_short_ones_are_as_they_were(count: int):
    @settings(HOW, max_examples=count)
    @given(size=st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 8), st.integers(0, 999)))
    def check(size: tuple[int, int, int, int]) -> None:
        *shape, seed = size
        source = torch.Generator().manual_seed(seed)
        blocks = torch.randn(shape, generator=source) * 10.0 ** torch.randint(-9, 9, (*shape[:2], 1), generator=source)
        counted = torch.rand(shape[:2], generator=source) < 0.7
        before = blocks.clone()
        found = clipped("blocks", blocks, counted, None)
        assert torch.equal(blocks, before)
        if not bool(counted.any()):
            assert torch.equal(found, before)
            return
        lengths = before.double().norm(dim=2)
        bound = float(lengths[counted].sort().values[(int(counted.sum()) - 1) // 2])
        assert float(found.double().norm(dim=2).max()) <= 1.0001 * bound
        short = lengths <= 0.9999 * bound
        assert torch.equal(found[short], before[short])

    check()


def related(m: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (d, m), and a relation matrix (m, m) that is positive definite."""
    source = np.random.default_rng(seed)
    half = source.normal(size=(m, m))
    return source.normal(size=(4, m)) * 10.0 ** source.integers(-6, 7, m), half @ half.T + 0.1 * np.eye(m)


@NIGHTLY
def test_influence_is_bounded_for_every_pair_and_the_matrix_stays_definite(count: int):
    @settings(HOW, max_examples=count)
    @given(size=st.tuples(st.integers(1, 8), st.integers(0, 999)), bound=st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]))
    def check(size: tuple[int, int], bound: float) -> None:
        weights, omega = related(*size)
        found = bounded_influence(weights, omega, (0.3, 0.2), bound=bound)
        influence = np.linalg.inv(0.3 * found + 0.2 * np.eye(len(omega)))
        own = np.sqrt(np.diag(influence))
        across = np.abs(influence / np.outer(own, own)) - np.eye(len(omega))
        assert across.max(initial=0.0) <= bound + 1e-6
        assert np.linalg.eigvalsh(influence).min() > 0
        np.testing.assert_allclose(np.diag(influence), np.diag(np.linalg.inv(0.3 * omega + 0.2 * np.eye(len(omega)))))

    check()


@NIGHTLY
def test_ranks_know_no_length(count: int):
    @settings(HOW, max_examples=count)
    @given(size=st.tuples(st.integers(2, 8), st.integers(0, 999)))
    def check(size: tuple[int, int]) -> None:
        weights, omega = related(*size)
        scales = 10.0 ** np.random.default_rng(size[1] + 1).integers(-6, 7, size[0])
        found = rank_relations(weights, omega, (0.3, 0.2))
        np.testing.assert_allclose(rank_relations(weights * scales, omega, (0.3, 0.2)), found, rtol=1e-9)
        assert np.linalg.eigvalsh(found).min() > 0

    check()
