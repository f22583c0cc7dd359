"""Every rule against a slow float64 truth that shares no code with it, over random shapes and awkward values."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest
import torch

from thornbed.defenses.aggregation.and_mask import and_mask
from thornbed.defenses.aggregation.fedavg import fedavg
from thornbed.defenses.aggregation.invariant import invariant
from thornbed.defenses.aggregation.krum import krum
from thornbed.defenses.aggregation.median import median
from thornbed.defenses.aggregation.multi_krum import multi_krum
from thornbed.defenses.aggregation.trimmed_mean import trimmed_mean
from thornbed.defenses.reporting import listening

SHAPES = [*((n, 1 + 37 * n % 101) for n in range(1, 51)), (20, 5000), (33, 513), (64, 300), (100, 200), (200, 64)]


def awkward(n, d):
    """Updates with ties, zeros of both signs, duplicate clients, outliers, and columns of one value."""
    generator = np.random.default_rng([n, d])
    rows = generator.normal(size=(n, d)).astype(np.float32) * np.float32(0.01)
    kind = generator.integers(0, 6, d)
    rows[:, kind == 1] = generator.integers(-2, 3, (n, (kind == 1).sum()))
    rows[:, kind == 2] = np.float32(0.125)
    rows[:, kind == 3] = np.where(generator.random((n, (kind == 3).sum())) < 0.5, 0.0, -0.0)
    rows[:, kind == 4] *= np.float32(10.0) ** generator.integers(-20, 20, (n, (kind == 4).sum())).astype(np.float32)
    if n > 2:
        rows[generator.integers(n)] = rows[generator.integers(n)]
    weights = generator.random(n) + 0.01
    return torch.from_numpy(rows), torch.from_numpy(weights / weights.sum()).float()


def close(result, truth, values):
    """Equal up to one rounding to float32, and to the rounding of float64 sums where large values cancel."""
    error = np.abs(result.numpy().astype(np.float64) - truth)
    assert (error <= 6e-8 * np.abs(truth) + 1e-13 * np.abs(values).max(axis=0) + 1e-45).all()


def share(value, n):
    return Fraction(str(value)) * n


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_means_and_masks(n, d):
    updates, weights = awkward(n, d)
    rows, claimed = updates.numpy().astype(np.float64), weights.numpy().astype(np.float64)
    close(fedavg(updates, weights), np.average(rows, axis=0, weights=claimed), rows)
    agreement = np.abs(np.sign(rows).sum(axis=0))
    for tau in (0.0, 0.2, 0.55):
        truth = np.where(agreement > share(tau, n), rows.mean(axis=0), 0.0)
        close(and_mask(updates, weights, tau=tau), truth, rows)


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_order_statistics(n, d):
    updates, weights = awkward(n, d)
    rows = np.sort(updates.numpy().astype(np.float64), axis=0)
    middle = rows[(n - 1) // 2 : n // 2 + 1]
    close(median(updates, weights), np.median(rows, axis=0), middle)
    agreement = np.abs(np.sign(rows).sum(axis=0))
    for alpha in (0.0, 0.1, 0.25, 0.45):
        tail = ceil(share(alpha, n))
        if 2 * tail >= n:
            continue
        kept = rows[tail : n - tail]
        close(trimmed_mean(updates, weights, alpha=alpha), kept.mean(axis=0), kept)
        for tau in (0.2, 0.6):
            passed = agreement > share(tau, n)
            with listening() as figures:
                result = invariant(updates, weights, tau=tau, alpha=alpha)
            close(result, np.where(passed, kept.mean(axis=0), 0.0), kept)
            assert figures["masked_share"] == pytest.approx(1 - passed.mean(), abs=1e-12)
            assert figures["trimmed_per_tail"] == tail


@pytest.mark.parametrize(("n", "d"), [shape for shape in SHAPES if shape[0] >= 3 and shape[0] <= 100])
def test_krum_and_multi_krum(n, d):
    updates = torch.randn(n, d, generator=torch.Generator().manual_seed(n)) * 0.01
    updates[::3] *= 1.5
    rows = updates.numpy().astype(np.float64)
    weights = torch.full((n,), 1 / n)
    for f in {0, (n - 3) // 2}:
        scores = []
        for i in range(n):
            others = sorted(((rows[i] - rows[j]) ** 2).sum() for j in range(n) if j != i)
            scores.append(sum(others[: n - f - 2]))
        with listening() as figures:
            chosen = krum(updates, weights, num_byzantine=f)
        np.testing.assert_allclose(figures["scores"], scores, rtol=1e-12)
        ranked = np.argsort(scores, kind="stable")
        if n > 3:  # with three clients the closest two tie, and rounding may order the truth's sums differently
            assert figures["selected"] == [ranked[0]]
            assert torch.equal(chosen, updates[ranked[0]])
        for m in (max(1, n // 2), n - f):
            with listening() as figures:
                mean = multi_krum(updates, weights, num_byzantine=f, num_selected=m)
            assert figures["selected"] == sorted(ranked[:m].tolist())
            close(mean, rows[figures["selected"]].mean(axis=0), rows)
