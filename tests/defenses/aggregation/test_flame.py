import numpy as np
import pytest
import torch
from sklearn.cluster import HDBSCAN

from thornbed.defenses.aggregation.flame import flame, majority
from thornbed.defenses.reporting import listening
from thornbed.defenses.server import Server


def server(n, seed=0):
    return Server(clients=range(n), generator=torch.Generator().manual_seed(seed))


def equal(n):
    return torch.full((n,), 1 / n)


def test_by_hand():
    updates = torch.tensor([[2.0, 0.0], [4.0, 0.0], [1.0, 0.0], [0.0, 100.0]])
    with listening() as figures:
        result = flame(updates, equal(4), server(4), noise=0.0)
    # The median of 2, 4, 1 and 100 is 3, and of the selected only 4 is above it.
    assert result.tolist() == [2.0, 0.0]
    assert figures == {"selected": [0, 1, 2], "clipped_share": pytest.approx(1 / 3)}


def test_the_noise_is_a_share_of_the_median_norm():
    updates = torch.tensor([[2.0, 0.0], [4.0, 0.0], [1.0, 0.0], [0.0, 100.0]])
    drawn = torch.randn(2, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(
        flame(updates, equal(4), server(4, seed=5)), torch.tensor([2.0, 0.0]) + 0.001 * 3 * drawn
    )
    still = torch.zeros(3, 100)
    assert not flame(still, equal(3), server(3)).any()  # no movement, no noise


@pytest.mark.parametrize(
    ("places", "selected"),
    [
        ([0, 1, 10, 11, 12], [2, 3, 4]),
        ([0, 1, 2, 4, 30], [0, 1, 2]),
        ([0, 1, 2, 3, 30], [0, 1, 2, 3]),  # one distance joins all four: none of them is left out by chance
        ([0, 1, 7, 8], [0, 1, 2, 3]),  # two pairs: a majority of four is three, and it takes the distance 6
        ([0, 0, 0, 5, 5, 5], [0, 1, 2, 3, 4, 5]),
        ([0, 0, 0, 0, 5, 5], [0, 1, 2, 3]),
        ([0, 9], [0, 1]),
    ],
)
def test_the_majority_by_hand(places, selected):
    points = np.array(places, np.float64)
    assert majority(np.abs(points[:, None] - points[None, :])).tolist() == selected


def slow_majority(distances):
    """Grow the distance until the rows within it, linked by chains, hold a majority."""
    n = len(distances)
    for far in np.unique(distances):
        for start in range(n):
            linked, waiting = {start}, [start]
            while waiting:
                one = waiting.pop()
                near = {j for j in range(n) if distances[one, j] <= far} - linked
                linked |= near
                waiting += near
            if len(linked) > n / 2:
                return sorted(linked)
    raise AssertionError


@pytest.mark.parametrize("case", range(40))
def test_what_hdbscan_selects_is_the_first_majority_of_single_linkage(case):
    generator = np.random.default_rng(case)
    n = int(generator.integers(2, 24))
    points = generator.normal(size=(n, 6)) + np.outer(np.arange(n) < n // 2, generator.normal(size=6))
    if case % 3 == 0:
        points[: n // 3] = points[0]
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    distances = np.abs(points[:, None] - points[None, :]).sum(axis=2)
    if case % 4 == 0:
        distances = np.round(distances * 2)  # many ties
    assert majority(distances).tolist() == slow_majority(distances)
    other = HDBSCAN(
        min_cluster_size=n // 2 + 1, min_samples=2, allow_single_cluster=True, metric="precomputed", copy=True
    )
    assert majority(distances).tolist() == np.flatnonzero(other.fit_predict(distances) == 0).tolist()


@pytest.mark.parametrize(("n", "d"), [(2, 5), (3, 40), (9, 700), (20, 1030)])
def test_against_float64(n, d):
    generator = torch.Generator().manual_seed(n)
    updates = torch.randn(n, d, generator=generator) * torch.linspace(0.5, 2, n)[:, None] + 0.7
    rows = updates.double().numpy()
    norms = np.array([np.sqrt((row * row).sum()) for row in rows])
    distances = np.array([[1 - (a * b).sum() / (u * v) for b, v in zip(rows, norms)] for a, u in zip(rows, norms)])
    chosen, most = slow_majority(np.round(distances, 12)), float(np.median(norms))
    drawn = 0.1 * most * torch.randn(d, generator=torch.Generator().manual_seed(6)).double().numpy()
    mean = sum(rows[i] * min(1.0, most / norms[i]) for i in chosen) / len(chosen)
    with listening() as figures:
        result = flame(updates, equal(n), server(n, seed=6), noise=0.1)
    assert figures["selected"] == chosen
    assert figures["clipped_share"] == pytest.approx(np.mean(norms[chosen] > most))
    np.testing.assert_allclose(result.numpy(), mean + drawn, rtol=1e-5, atol=1e-5)


def test_on_models_instead_of_updates_the_start_hides_what_the_angles_say():
    """Why the cosines are of updates: the same clients, seen from 0, are all alike next to what they started from."""
    generator = torch.Generator().manual_seed(7)
    start, direction = 100 * torch.randn(500, generator=generator), torch.randn(500, generator=generator)
    updates = direction + 0.5 * torch.randn(9, 500, generator=generator)
    updates[:3] = -direction
    models = start + updates
    apart = 1 - torch.nn.functional.cosine_similarity(models[:, None].double(), models[None].double(), dim=2)
    assert float(apart.max()) < 0.001
    with listening() as figures:
        flame(updates, equal(9), server(9))
    assert len(figures["selected"]) == 5  # the tightest majority, not all six honest ones
    assert min(figures["selected"]) >= 3


@pytest.mark.parametrize(
    ("n", "options", "message"),
    [
        (1, {}, "flame needs n >= 2 clients to have a majority: n = 1"),
        (5, {"noise": -0.1}, "flame needs a finite noise >= 0: noise = -0.1"),
        (5, {"noise": float("inf")}, "flame needs a finite noise >= 0: noise = inf"),
    ],
)
def test_refusals(n, options, message):
    with pytest.raises(ValueError, match=message):
        flame(torch.zeros(n, 2), equal(n), server(n), **options)
