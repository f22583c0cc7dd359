"""The rules of angles, lengths, votes and neighbours against slow float64 truths that share no code with them."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest
import torch

from thornbed.defenses.aggregation.bulyan import bulyan
from thornbed.defenses.aggregation.krum_trimmed_mean import krum_trimmed_mean
from thornbed.defenses.aggregation.mean_variance_ratio import mean_variance_ratio
from thornbed.defenses.aggregation.multi_krum_cosine import multi_krum_cosine
from thornbed.defenses.aggregation.norm_clipping import norm_clipping
from thornbed.defenses.aggregation.rfa import rfa
from thornbed.defenses.aggregation.rlr import rlr
from thornbed.defenses.aggregation.sign_sgd import sign_sgd
from thornbed.defenses.reporting import listening

SHAPES = [*((n, 1 + 37 * n % 101) for n in range(3, 41)), (20, 5000), (33, 1025), (64, 300), (100, 200)]


def awkward(n, d):
    """Updates with ties, zeros of both signs, duplicate clients, and columns of one value."""
    generator = np.random.default_rng([n, d])
    rows = generator.normal(size=(n, d)).astype(np.float32) * np.float32(0.01)
    kind = generator.integers(0, 5, d)
    rows[:, kind == 1] = generator.integers(-2, 3, (n, (kind == 1).sum()))
    rows[:, kind == 2] = np.float32(0.125)
    rows[:, kind == 3] = np.where(generator.random((n, (kind == 3).sum())) < 0.5, 0.0, -0.0)
    rows[generator.integers(n)] = rows[generator.integers(n)]
    weights = generator.random(n) + 0.01
    return torch.from_numpy(rows), torch.from_numpy(weights / weights.sum()).float()


def scattered(n, d):
    """Updates without ties: noise that differs by client about a common direction."""
    generator = np.random.default_rng([n, d, 1])
    rows = generator.normal(size=d) + generator.normal(size=(n, d)) * np.linspace(0.5, 2, n)[:, None]
    rows = (0.01 * rows).astype(np.float32)
    return torch.from_numpy(rows), rows.astype(np.float64), torch.full((n,), 1 / n)


def close(result, truth, values):
    """Equal up to one rounding to float32, and to the rounding of float64 sums where large values cancel."""
    error = np.abs(result.numpy().astype(np.float64) - truth)
    assert (error <= 6e-8 * np.abs(truth) + 1e-13 * np.abs(values).max(axis=0) + 1e-45).all()


def share(value, n):
    return Fraction(str(value)) * n


def neighbours(distance, rows, of, count):
    return sum(sorted(distance(rows[of], rows[other]) for other in range(len(rows)) if other != of)[:count])


def euclidean(one, other):
    return ((one - other) ** 2).sum()


def cosine(one, other):
    return 1 - one @ other / np.sqrt((one @ one) * (other @ other))


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_votes(n, d):
    updates, weights = awkward(n, d)
    rows, claimed = updates.numpy().astype(np.float64), weights.numpy().astype(np.float64)
    votes = np.sign(rows).sum(axis=0)
    step = np.median([np.abs(row).mean() for row in rows])
    with listening() as figures:
        result = sign_sgd(updates, weights)
    assert figures["step_size"] == pytest.approx(step, rel=1e-12)
    np.testing.assert_array_equal(result.numpy(), np.float32(figures["step_size"]) * np.sign(votes).astype(np.float32))
    lost = sum(min((column > 0).sum(), (column < 0).sum()) for column in rows.T)
    assert figures["overruled_share"] == pytest.approx(lost / (n * d), abs=1e-12)
    mean = np.average(rows, axis=0, weights=claimed)
    for threshold in (0.0, 0.2, 0.4, 0.55, 1.0):
        back = np.abs(votes) < share(threshold, n)
        with listening() as figures:
            result = rlr(updates, weights, threshold=threshold)
        close(result, np.where(back, -mean, mean), rows)
        assert figures["flipped_share"] == pytest.approx((back & (mean != 0)).mean(), abs=1e-12)


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_ratio_of_mean_and_variance(n, d):
    updates, rows, weights = scattered(n, d)
    ratio = rows.mean(axis=0) ** 2 / rows.var(axis=0, ddof=1)
    for threshold in (0.0, 0.064, 0.5):
        for alpha in (0.1, 0.25):
            tail = ceil(share(alpha, n))
            kept = np.sort(rows, axis=0)[tail : n - tail]
            with listening() as figures:
                result = mean_variance_ratio(updates, weights, threshold=threshold, alpha=alpha)
            close(result, np.where(ratio > threshold, kept.mean(axis=0), 0.0), kept)
            assert figures["masked_share"] == pytest.approx((ratio <= threshold).mean(), abs=1e-12)
            assert figures["trimmed_per_tail"] == tail


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_lengths(n, d):
    updates, weights = awkward(n, d)
    updates[0] *= 1e12
    rows = updates.numpy().astype(np.float64)
    norms = np.sqrt((rows**2).sum(axis=1))
    for norm in (None, 0.02, 1e6):
        bound = np.median(norms) if norm is None else norm
        shortened = np.array([row * min(1.0, bound / length) if length else row for row, length in zip(rows, norms)])
        with listening() as figures:
            result = norm_clipping(updates, weights, norm=norm)
        close(result, shortened.mean(axis=0), shortened)
        np.testing.assert_allclose(figures["norms"], norms, rtol=1e-12)
        assert figures["clip_norm"] == pytest.approx(bound, rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [shape for shape in SHAPES if shape[0] > 3 and shape[1] > 1])
def test_neighbours_by_angle_and_by_distance(n, d):
    updates, rows, weights = scattered(n, d)
    for f in {0, (n - 3) // 2}:
        angles = [neighbours(cosine, rows, i, n - f - 2) for i in range(n)]
        with listening() as figures:
            mean = multi_krum_cosine(updates, weights, num_byzantine=f)
        np.testing.assert_allclose(figures["scores"], angles, rtol=1e-9)
        selected = sorted(np.argsort(angles, kind="stable")[: n - f].tolist())
        assert figures["selected"] == selected
        close(mean, rows[selected].mean(axis=0), rows)

        scores = [neighbours(euclidean, rows, i, n - f - 2) for i in range(n)]
        selected = sorted(np.argsort(scores, kind="stable")[: n - f].tolist())
        for alpha in (0.1, 0.25):
            tail = ceil(share(alpha, n - f))
            kept = np.sort(rows[selected], axis=0)[tail : n - f - tail]
            with listening() as figures:
                mean = krum_trimmed_mean(updates, weights, num_byzantine=f, alpha=alpha)
            assert figures["selected"] == selected
            close(mean, kept.mean(axis=0), kept)


@pytest.mark.parametrize(("n", "d"), [shape for shape in SHAPES if shape[0] <= 33 and shape[1] > 1])
def test_repeated_krum_and_the_values_closest_to_the_median(n, d):
    updates, rows, weights = scattered(n, d)
    for f in {0, (n - 3) // 4}:
        left, chosen = list(range(n)), []
        while len(chosen) < n - 2 * f:
            among = rows[left]
            ranks = [
                (neighbours(euclidean, among, i, max(1, len(left) - f - 2)), neighbours(euclidean, among, i, n), i)
                for i in range(len(left))
            ]
            chosen.append(left.pop(min(ranks)[2]))
        with listening() as figures:
            result = bulyan(updates, weights, num_byzantine=f)
        assert figures["selected"] == sorted(chosen)
        truth = []
        for column in rows[sorted(chosen)].T:
            far = np.abs(column - np.median(column))
            truth.append(column[np.argsort(far, kind="stable")[: n - 4 * f]].mean())
        close(result, np.array(truth), rows)


def geometric_median(rows, smoothing=1e-6, rounds=20_000):
    """Iterate in the d coordinates themselves, from the mean, until every digit stands still."""
    middle = np.median(rows, axis=0)
    least = smoothing * np.median([np.sqrt(((row - middle) ** 2).sum()) for row in rows])
    point = rows.mean(axis=0)
    for _ in range(rounds):
        weights = 1 / np.maximum(np.sqrt(((rows - point) ** 2).sum(axis=1)), least)
        weights /= weights.sum()
        before, point = point, weights @ rows
        if np.abs(point - before).max() <= 1e-15 * np.abs(point).max():
            break
    return point, weights


def near(result, truth, honest):
    """Equal to 1e-7 of the distance between honest clients, which is how far apart two roundings to float32 are."""
    spread = np.median(np.sqrt(((honest - honest.mean(axis=0)) ** 2).sum(axis=1)))
    error = np.sqrt(((result.numpy().astype(np.float64) - truth) ** 2).sum())
    assert error <= 1e-7 * spread + 6e-8 * np.sqrt((truth**2).sum())


@pytest.mark.parametrize(("n", "d"), [(3, 2), (4, 3), (7, 50), (10, 5), (20, 1000), (33, 1025), (50, 40)])
def test_geometric_median(n, d):
    updates, rows, weights = scattered(n, d)
    truth, shares = geometric_median(rows)
    with listening() as figures:
        near(rfa(updates, weights), truth, rows)
    np.testing.assert_allclose(figures["weiszfeld_weights"], shares, rtol=1e-6)
    assert 1 < figures["iterations"] < 1000


@pytest.mark.parametrize("size", [1e6, 1e12, 1e20, 1e30])
@pytest.mark.parametrize("number", [1, 6])
def test_geometric_median_beside_outliers(size, number):
    """Squared distances alone would give noise here: at 1e20 a digit of the outlier is 1e4 honest distances."""
    updates, rows, weights = scattered(20, 400)
    outliers = np.random.default_rng(number).normal(size=(number, 400))
    updates[:number] = torch.from_numpy((size * outliers).astype(np.float32))
    rows[:number] = updates[:number].numpy().astype(np.float64)
    near(rfa(updates, weights), geometric_median(rows)[0], rows[number:])


def test_geometric_median_of_small_differences_between_large_updates():
    """Clients that differ by 1e-4 about a common update of size 1: the centre takes out what they share."""
    generator = np.random.default_rng(0)
    common = generator.normal(size=20_000)
    rows = (common + 1e-4 * generator.normal(size=(9, 20_000)) * np.arange(1, 10)[:, None]).astype(np.float32)
    updates, rows = torch.from_numpy(rows), rows.astype(np.float64)
    near(rfa(updates, torch.full((9,), 1 / 9)), geometric_median(rows)[0], rows)
