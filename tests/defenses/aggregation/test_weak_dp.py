import numpy as np
import pytest
import torch

from thornbed.defenses.aggregation.weak_dp import weak_dp
from thornbed.defenses.reporting import listening
from thornbed.defenses.server import Server


def server(n, seed=0):
    return Server(clients=range(n), generator=torch.Generator().manual_seed(seed))


def equal(n):
    return torch.full((n,), 1 / n)


def test_by_hand():
    updates = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    with listening() as figures:
        result = weak_dp(updates, equal(2), server(2), norm=1.0, noise=0.0)
    assert result.tolist() == pytest.approx([0.3, 0.9])
    assert figures == {"clipped_share": 0.5, "noise_share": 0.0}


def test_a_bound_that_is_not_given_is_the_median_of_the_norms():
    updates = torch.tensor([[5.0, 0.0], [2.0, 0.0], [0.0, -1.0]])
    with listening() as figures:
        result = weak_dp(updates, equal(3), server(3), noise=0.0)
    assert result.tolist() == pytest.approx([4 / 3, -1 / 3])
    assert figures["clipped_share"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("n", "d", "norm"), [(1, 7, 0.5), (4, 1, 2.0), (9, 700, 20.0), (20, 1030, None)])
def test_against_float64(n, d, norm):
    updates = torch.randn(n, d, generator=torch.Generator().manual_seed(n)) * torch.linspace(0.1, 3, n)[:, None]
    rows = updates.double().numpy()
    norms = [float(np.sqrt((row * row).sum())) for row in rows]
    most = float(np.median(norms)) if norm is None else norm
    mean = sum(row * min(1.0, most / length) for row, length in zip(rows, norms, strict=True)) / n
    drawn = 0.3 * torch.randn(d, generator=torch.Generator().manual_seed(5)).double().numpy()
    with listening() as figures:
        result = weak_dp(updates, equal(n), server(n, seed=5), norm=norm, noise=0.3)
    np.testing.assert_allclose(result.numpy(), mean + drawn, rtol=1e-5, atol=1e-6)
    loud, signal = np.linalg.norm(drawn), np.linalg.norm(mean)
    assert figures["noise_share"] == pytest.approx(loud / (loud + signal), rel=1e-5)
    assert figures["clipped_share"] == pytest.approx(sum(length > most for length in norms) / n)


def test_the_noise_has_the_deviation_it_is_said_to_have_and_a_generator_of_the_round():
    nothing = torch.zeros(3, 200_000)
    first, again, later = (weak_dp(nothing, equal(3), server(3, seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    assert float(first.std()) == pytest.approx(0.025, rel=0.01)
    assert float(first.mean()) == pytest.approx(0, abs=3e-4)


@pytest.mark.parametrize("size", [10.0, 1e8, 1e30])
def test_one_client_moves_the_result_by_no_more_than_twice_its_share_of_the_bound(size):
    updates = torch.randn(10, 50, generator=torch.Generator().manual_seed(1))
    attacked = updates.clone()
    attacked[4] = size
    honest, moved = (weak_dp(given, equal(10), server(10), norm=2.0, noise=0.0) for given in (updates, attacked))
    assert 0.2 < float((honest - moved).norm()) <= 0.4 + 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": 0.0}, "weak_dp needs a finite norm > 0: n = 5, norm = 0.0"),
        ({"norm": float("inf")}, "weak_dp needs a finite norm > 0: n = 5, norm = inf"),
        ({"noise": -0.1}, "weak_dp needs a finite noise >= 0: noise = -0.1"),
        ({"noise": float("nan")}, "weak_dp needs a finite noise >= 0: noise = nan"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        weak_dp(torch.zeros(5, 2), equal(5), server(5), **options)
