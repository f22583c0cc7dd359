"""The leverage constant against hand-made numbers, a slow truth, and the recovery that it promises and refuses."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from thornbed.clients.local_training import one_thread
from thornbed.defenses.autoencoder import Autoencoder
from thornbed.defenses.leverage import Certificate, Leverage, certify
from thornbed.defenses.leverage_bounds import above, above_by_set, below, corners, share
from thornbed.defenses.purification.copur import copur

W1 = torch.ones(1, 1, dtype=torch.float64)


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    with one_thread():
        yield


def everybody(agents: int) -> Tensor:
    return torch.ones(agents, dtype=torch.bool)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights(agents: int, dim: int, rank: int, seed: int = 0) -> Tensor:
    return torch.randn(agents, dim, rank, generator=source(seed), dtype=torch.float64)


def affine(weight: Tensor) -> Autoencoder:
    """Return the autoencoder that projects on the range of a weight (M, d, k)."""
    agents, dim, rank = weight.shape
    manifold = Autoencoder(
        torch.zeros(agents, dim, dtype=torch.float64), torch.ones(agents, dtype=torch.float64), rank, source()
    )
    basis = torch.linalg.qr(weight.flatten(0, 1))[0]
    with torch.no_grad():
        manifold.output.weight.copy_(basis)
        manifold.encoder[-1].weight.copy_(basis.T)
    return manifold.requires_grad_(False)


@pytest.mark.parametrize("agents", [1, 2, 5, 6, 7])
@pytest.mark.parametrize("rank", [1, 3])
def test_agents_that_all_hold_the_same_tolerate_a_minority(agents, rank) -> None:
    # the toy example of Remark 2: c_q = 1 - q / M
    turned = torch.stack([torch.linalg.qr(weights(1, 3, 3, seed)[0])[0][:, :rank] for seed in range(agents)])
    found = certify(turned, everybody(agents), source())
    assert found.tolerated == (agents - 1) // 2
    assert found.refuted_at == found.tolerated + 1
    for q, level in enumerate(found.levels, start=1):
        assert level.low == pytest.approx(1 - q / agents)
        assert level.high == pytest.approx(1 - q / agents)


def test_an_agent_that_alone_sees_a_direction_leaves_no_room_for_liars() -> None:
    weight = torch.zeros(4, 2, 2, dtype=torch.float64)
    weight[:, 0, 0] = 1.0
    weight[3, 1, 1] = 1.0
    found = certify(weight, everybody(4), source())
    assert (found.tolerated, found.refuted_at) == (0, 1)
    assert found.levels[0].high == pytest.approx(0.0, abs=1e-6)
    assert found.levels[0].worst == (3,)
    without = certify(weight, torch.tensor([True, True, True, False]), source())
    assert not without.determined
    assert (without.tolerated, without.refuted_at, without.levels, without.gain) == (0, 0, (), 0.0)
    assert without.radius(0.1, 0) == math.inf


@pytest.mark.parametrize("sizes", [(3, 1, 1, 1), (2, 1, 1), (0.3, 0.1, 0.1, 0.1), (3.3, 1.1, 1.1, 1.1), (7, 3, 3, 1)])
@pytest.mark.parametrize("dim", [1, 3])
def test_at_exactly_one_half_liars_win(sizes, dim) -> None:
    # one agent weighs as much as all the others: rounding must not put c_1 on the wrong side
    turned = torch.linalg.qr(weights(1, dim, dim)[0])[0][:, :1]
    found = certify(torch.stack([size * turned for size in sizes]), everybody(len(sizes)), source())
    assert found.levels[0].high == pytest.approx(0.5)
    assert (found.tolerated, found.refuted_at) == (0, 1)


def test_a_tie_that_rounding_made_a_win_is_a_tie() -> None:
    above_half = Leverage(num_corrupted=1, low=0.5 + 1e-12, high=0.5 + 1e-12, exact=True, worst=(0,), direction=W1)
    assert above_half.tolerated is False
    clear = Leverage(num_corrupted=1, low=0.5 + 1e-6, high=0.6, exact=False, worst=(0,), direction=W1)
    assert clear.tolerated is True
    open_ = Leverage(num_corrupted=1, low=0.4, high=0.6, exact=False, worst=(0,), direction=W1)
    assert open_.tolerated is None


def slow(rows: np.ndarray, q: int) -> float:
    """The largest share by linear programs: for each set and signs of its members, with the sum of all at most 1."""
    n, k = rows.shape
    best = 0.0
    for liars in itertools.combinations(range(n), q):
        for signs in itertools.product([1, -1], repeat=q):
            gain = sum(sign * rows[i] for sign, i in zip(signs, liars))
            # variables z (free) and t >= |rows z|, sum t <= 1
            cost = np.concatenate([-gain, np.zeros(n)])
            bounded = np.block([[rows, -np.eye(n)], [-rows, -np.eye(n)], [np.zeros((1, k)), np.ones((1, n))]])
            right = np.concatenate([np.zeros(2 * n), [1.0]])
            done = linprog(cost, A_ub=bounded, b_ub=right, bounds=[(None, None)] * k + [(0, None)] * n)
            best = max(best, -done.fun)
    return best


# Of the seeds those with which q - 1 liars are tolerated: a level after the first that is refuted is not certified.
@pytest.mark.parametrize(
    ("agents", "rank", "q", "seed"),
    [(5, 1, 2, 0), (5, 2, 1, 0), (6, 2, 2, 2), (7, 3, 2, 1), (7, 4, 1, 0), (7, 4, 1, 4)],
)
def test_scalar_agents_are_exact(agents, rank, q, seed) -> None:
    weight = weights(agents, 1, rank, seed)
    level = certify(weight, everybody(agents), source()).levels[q - 1]
    share_found, z = corners(weight[:, 0], q)
    assert share_found == pytest.approx(slow(weight[:, 0].numpy(), q), rel=1e-7)
    assert float(share(weight, z[None], q)) == pytest.approx(share_found)
    assert level.exact
    assert level.low == level.high == pytest.approx(1 - share_found)


@pytest.mark.parametrize(("agents", "dim", "rank", "q"), [(5, 1, 2, 1), (7, 1, 3, 2), (6, 1, 2, 2)])
def test_the_bounds_hold_what_the_enumeration_finds(agents, dim, rank, q) -> None:
    weight = weights(agents, dim, rank, seed=5)
    truth, _ = corners(weight[:, 0], q)
    attained, _ = below(weight, q, 8, source())
    assert attained <= truth + 1e-9
    assert attained > 0.99 * truth
    assert above_by_set(weight, q) >= truth - 1e-9
    assert above(weight, q) >= truth - 1e-9


@pytest.mark.parametrize("seed", [643, *range(20)])
@pytest.mark.parametrize("spread", [1e3, 1e6, 1e9])
def test_agents_of_sizes_that_have_nothing_in_common_get_a_bound_that_holds(seed, spread) -> None:
    loud = torch.tensor([1.0, 0, 0, 1, 1, 1]) == 1
    weight = weights(6, 2, 3, seed).float()
    weight[loud] /= spread
    for q in (1, 2):
        blocks = torch.linalg.qr(weight.double().flatten(0, 1))[0].view(6, 2, 3)
        attained, _ = below(blocks, q, 4, source())
        assert attained <= above(blocks, q) + 1e-12
        assert attained <= above_by_set(blocks, q) + 1e-12
    assert certify(weight, everybody(6), source(), starts=1).tolerated <= 2


@pytest.mark.parametrize(("agents", "dim", "rank"), [(7, 3, 2), (8, 4, 3)])
def test_no_direction_that_is_tried_is_outside_the_bounds(agents, dim, rank) -> None:
    weight = weights(agents, dim, rank)
    found = certify(weight, everybody(agents), source())
    tried = torch.randn(20_000, rank, generator=source(1), dtype=torch.float64)
    for level in found.levels:
        assert not level.exact
        assert level.low <= level.high + 1e-12
        assert level.high - level.low < 0.04  # the bounds are of use
        assert float(share(weight, tried, level.num_corrupted).max()) <= 1 - level.low
        assert float(share(weight, tried, level.num_corrupted).max()) <= 1 - level.high + 1e-3
        norms = level.direction.norm(dim=1)
        mine = norms[list(level.worst)].sum() / norms.sum()
        assert 1 - float(mine) == pytest.approx(level.high)


def errors(weight: Tensor, sets: Sequence[tuple[int, ...]], lie: Tensor) -> Tensor:
    """The errors of copur where each set of liars adds `lie` (M, d) to a point of the manifold, 0 here by symmetry."""
    sent = torch.zeros(len(sets), *weight.shape[:2], dtype=torch.float64)
    for row, liars in zip(sent, sets):
        row[list(liars)] = lie[list(liars)]
    found = copur(sent, everybody(len(weight)), affine(weight), solver="reweighted", steps=3000, precision=1e-8)
    return found.features.flatten(1).norm(dim=1)


@pytest.mark.parametrize(("agents", "dim", "rank", "seed"), [(7, 1, 1, 0), (9, 1, 2, 1), (9, 4, 2, 2), (8, 3, 3, 3)])
def test_so_many_liars_as_certified_never_win_and_one_more_does(agents, dim, rank, seed) -> None:
    weight = weights(agents, dim, rank, seed)
    found = certify(weight, everybody(agents), source())
    q = found.tolerated
    assert q >= 1
    assert found.refuted_at == q + 1
    # the worst there is: liars who all tell of one and the same other point
    sets = list(itertools.combinations(range(agents), q))
    for lie in (found.levels[q - 1].direction, 1e3 * torch.randn(agents, dim, generator=source(7)).double()):
        assert float(errors(weight, sets, lie).max()) < 1e-3 * float(lie.norm())
    one_more = found.levels[q]
    assert float(errors(weight, [one_more.worst], one_more.direction)) > 0.5 * float(one_more.direction.norm())


def test_silent_agents_cost_liars() -> None:
    weight = weights(9, 4, 2)
    tolerated = []
    for silent in range(8):
        observed = torch.arange(9) >= silent
        found = certify(weight, observed, source())
        assert found.observed == tuple(range(silent, 9))
        tolerated.append(found.tolerated)
    assert tolerated == sorted(tolerated, reverse=True)
    assert (tolerated[0], tolerated[-1]) == (2, 0)


def test_the_radius_of_theorem_4_by_hand_and_that_it_holds() -> None:
    five = torch.ones(5, 1, 1, dtype=torch.float64)
    found = certify(five, everybody(5), source())
    # c_1 = 0.8, gain = 1 with all of them: 2 * 0.3 / 0.6
    assert found.radius(0.3, 1) == pytest.approx(1.0)
    assert found.radius(0.3, 0) == pytest.approx(0.6)
    assert found.radius(0.3, 3) == math.inf
    four = certify(five, torch.tensor([True, True, True, True, False]), source())
    assert four.gain == pytest.approx(math.sqrt(4 / 5))
    assert four.radius(0.3, 1) == pytest.approx(0.6 / (0.5 * math.sqrt(4 / 5)))
    # embeddings off the manifold by delta in sum of blocks, and a liar: the minimum of stage one on the manifold
    noise = 0.1 * torch.randn(200, 5, 1, generator=source(1), dtype=torch.float64)
    off = noise - noise.mean(dim=1, keepdim=True)
    sent = off.clone()
    sent[:, 2] += 100 * torch.randn(200, 1, generator=source(2), dtype=torch.float64)
    features = copur(sent, everybody(5), affine(five), solver="reweighted", penalty_steps=0).features
    for row, left in zip(features, off):
        assert float(row.norm()) <= found.radius(float(left.norm(dim=1).sum()), 1)


@pytest.mark.parametrize("tau", [1.0, 10.0, 0.1])
def test_the_radius_holds_for_both_stages_with_tau_of_1_and_above_and_not_below(tau) -> None:
    # 60 rows off the manifold, a liar far away; delta of each row is known
    weight = weights(7, 2, 2, seed=11)
    manifold = affine(weight)
    found = certify(weight, everybody(7), source())
    assert found.tolerated >= 1
    truth = torch.einsum("mdk,nk->nmd", weight, torch.randn(60, 2, generator=source(3), dtype=torch.float64))
    truth = truth + 0.1 * torch.randn(truth.shape, generator=source(4), dtype=torch.float64)
    on_it = manifold(truth)
    deltas = (on_it - truth).norm(dim=2).sum(dim=1).tolist()
    sent = truth.clone()
    sent[:, found.levels[0].worst[0]] += 1e3 * found.levels[0].direction[found.levels[0].worst[0]]
    options = {"solver": "reweighted", "penalty_steps": 600, "penalty_rate": 0.1, "tau": tau}
    off = (copur(sent, everybody(7), manifold, **options).features - on_it).flatten(1).norm(dim=1)
    inside = [distance <= found.radius(delta, 1) for distance, delta in zip(off.tolist(), deltas)]
    assert all(inside) if tau >= 1 else not all(inside)


@pytest.mark.parametrize(
    ("weight", "observed", "starts", "sentence"),
    [
        (torch.ones(3, 2), everybody(3), 1, r"finite weights \(M, d, k\), not all zero: shape \(3, 2\)"),
        (torch.zeros(3, 2, 1), everybody(3), 1, "finite weights .* not all zero"),
        (torch.full((3, 2, 1), math.nan), everybody(3), 1, "finite weights"),
        (torch.ones(3, 2, 1), everybody(4), 1, r"one bool an agent: M = 3, observed is torch.bool \(4,\)"),
        (torch.ones(3, 2, 1), ~everybody(3), 1, "at least one observed agent: M = 3, observed = 0"),
        (torch.ones(3, 2, 1), everybody(3), 0, "starts >= 1: starts = 0"),
    ],
)
def test_what_makes_no_certificate_is_refused(weight, observed, starts, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        certify(weight, observed, source(), starts=starts)


@pytest.mark.parametrize(("delta", "liars"), [(-1.0, 0), (math.nan, 0), (0.1, -1)])
def test_a_radius_of_nonsense_is_refused(delta, liars) -> None:
    found: Certificate = certify(torch.ones(3, 1, 1), everybody(3), source())
    with pytest.raises(ValueError, match=f"delta = {delta}, num_corrupted = {liars}"):
        found.radius(delta, liars)
