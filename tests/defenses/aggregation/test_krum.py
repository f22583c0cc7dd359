import numpy as np
import pytest
import torch

from thornbed.defenses.aggregation.krum import krum
from thornbed.defenses.reporting import listening


def equal(n):
    return torch.full((n,), 1 / n)


def test_by_hand():
    # On a line at 0, 1, 3, 7, 100 with f = 1: each takes its 2 closest others.
    updates = torch.tensor([[0.0], [1.0], [3.0], [7.0], [100.0]])
    with listening() as figures:
        result = krum(updates, equal(5), num_byzantine=1)
    assert result.tolist() == [1.0]
    assert figures == {
        "selected": [1],
        "scores": [1.0 + 9.0, 1.0 + 4.0, 4.0 + 9.0, 16.0 + 36.0, 93.0**2 + 97.0**2],
        "num_byzantine": 1,
    }


def test_the_number_of_neighbours_follows_f():
    # f = 1: 2 closest others, best in the middle of the three; f = 0: 3, and the one nearest to 4 wins.
    updates = torch.tensor([[0.0], [0.1], [0.2], [4.0], [8.0]])
    assert krum(updates, equal(5), num_byzantine=1).item() == pytest.approx(0.1)
    assert krum(updates, equal(5), num_byzantine=0).item() == pytest.approx(0.2)


@pytest.mark.parametrize(("n", "f"), [(3, 0), (4, 0), (5, 1), (6, 1), (7, 2), (20, 8)])
def test_without_a_number_f_is_the_largest_allowed(n, f):
    updates = torch.randn(n, 6, generator=torch.Generator().manual_seed(n))
    with listening() as unknown:
        krum(updates, equal(n))
    with listening() as known:
        krum(updates, equal(n), num_byzantine=f)
    assert unknown == known
    assert unknown["num_byzantine"] == f


def test_ties_go_to_the_lowest_row():
    updates = torch.tensor([[10.0], [0.0], [1.0]])  # with three clients the closest two have the same score
    assert krum(updates, equal(3)).item() == 0.0
    assert krum(updates.flip(0), equal(3)).item() == 1.0


def test_the_result_is_a_copy():
    updates = torch.randn(5, 4)
    result = krum(updates, equal(5))
    result.zero_()
    assert updates.abs().sum(1).min() > 0


def test_the_chosen_one_is_right_where_differences_are_small():
    """Regression: distances by the Gram trick in float32 choose at random here, or by a negative distance."""
    generator = np.random.default_rng(3)
    noise = generator.normal(size=(9, 500_000)) * np.linspace(1.0, 1.2, 9)[:, None]
    rows = (generator.normal(size=500_000) + 1e-5 * noise).astype(np.float32)
    rows = rows[generator.permutation(9)]
    exact = rows.astype(np.float64)
    squared = np.array([[((one - other) ** 2).sum() for other in exact] for one in exact])
    np.fill_diagonal(squared, np.inf)
    scores = np.sort(squared, axis=1)[:, :4].sum(axis=1)  # n - f - 2 with f = 3
    with listening() as figures:
        result = krum(torch.from_numpy(rows), equal(9))
    np.testing.assert_allclose(figures["scores"], scores, rtol=1e-10)
    np.testing.assert_array_equal(result.numpy(), rows[scores.argmin()])


@pytest.mark.parametrize(
    ("n", "f", "message"),
    [
        (6, 2, "krum needs n >= 2f [+] 3: n = 6, f = 2"),
        (2, None, "krum needs n >= 2f [+] 3: n = 2, f = 0"),
        (5, -1, "krum needs num_byzantine >= 0: n = 5, num_byzantine = -1"),
    ],
)
def test_refusals(n, f, message):
    with pytest.raises(ValueError, match=message):
        krum(torch.zeros(n, 2), equal(n), num_byzantine=f)
