import pytest
import torch

from thornbed.defenses.aggregation.invariant import invariant
from thornbed.defenses.aggregation.trimmed_mean import trimmed_mean
from thornbed.defenses.reporting import listening

EQUAL = torch.full((5,), 0.2)


def column(positive, negative, zero=0):
    """One coordinate with that many clients of each sign."""
    return torch.tensor([1.0] * positive + [-1.0] * negative + [0.0] * zero).reshape(-1, 1)


def test_by_hand():
    # Signs sum to 5, 1, -3 and 0; above 0.2 of 5 are 2 and more. One value is removed from each tail.
    updates = torch.tensor(
        [
            [1.0, 5.0, -1.0, 0.0],
            [2.0, 4.0, -2.0, 1.0],
            [3.0, 3.0, -3.0, -1.0],
            [4.0, -2.0, -4.0, 2.0],
            [100.0, -1.0, 5.0, -2.0],
        ]
    )
    with listening() as figures:
        result = invariant(updates, EQUAL, tau=0.2, alpha=0.2)
    assert result.tolist() == [3.0, 0.0, -2.0, 0.0]
    assert figures == {"masked_share": 0.5, "trimmed_per_tail": 1}


@pytest.mark.parametrize(
    ("tau", "votes", "passes"),
    [
        (0.2, (12, 8), False),  # 4 of 20 is 0.2, not above it
        (0.2, (12, 7, 1), True),  # 5 of 20
        (0.2, (8, 12), False),
        (0.2, (7, 12, 1), True),
        (0.6, (4, 1), False),  # 3 of 5
        (0.6, (4, 0, 1), True),  # 4 of 5
        (0.3, (5, 2, 3), False),  # 3 of 10, and 0.3 is below 3/10 in binary
        (0.3, (6, 2, 2), True),
        (1 / 3, (2, 1), False),  # 1 of 3
        (0.0, (10, 10), False),
        (0.0, (3, 2), True),
        (0.99, (10, 0), True),
        (0.9, (9, 0, 1), False),  # 9 of 10: a zero agrees with nobody
    ],
)
def test_the_boundary_of_tau_is_strict_and_exact(tau, votes, passes):
    updates = column(*votes)
    with listening() as figures:
        invariant(updates, torch.full((len(updates),), 1 / len(updates)), tau=tau, alpha=0.25)
    assert figures["masked_share"] == (0.0 if passes else 1.0)


def test_the_magnitude_of_an_outlier_does_not_buy_a_sign():
    updates = column(13, 7)
    updates[13:] *= 1e30
    # 5 of the 7 outliers are trimmed below and 5 ones above: -1e30 twice and 1 eight times are left.
    assert invariant(updates, torch.full((20,), 0.05)).item() == pytest.approx(-2e29)
    updates[13:18] = -1e30
    updates[18:] = 1.0  # now only 5 outliers, as many as a tail
    assert invariant(updates, torch.full((20,), 0.05)).tolist() == [1.0]


def test_claimed_weights_are_ignored():
    updates = torch.randn(8, 40, generator=torch.Generator().manual_seed(0))
    greedy = torch.tensor([0.93] + [0.01] * 7)
    assert torch.equal(invariant(updates, greedy), invariant(updates, torch.full((8,), 1 / 8)))


def test_what_passes_is_the_trimmed_mean():
    updates = torch.randn(20, 500, generator=torch.Generator().manual_seed(1))
    weights = torch.full((20,), 0.05)
    masked = invariant(updates, weights, tau=0.4, alpha=0.1)
    passed = updates.sign().sum(0).abs() > 8
    assert 0 < passed.sum() < 500
    assert torch.equal(masked, torch.where(passed, trimmed_mean(updates, weights, alpha=0.1), torch.zeros(())))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": 1.0}, "invariant needs 0 <= tau < 1: n = 5, tau = 1.0"),
        ({"tau": -0.2}, "invariant needs 0 <= tau < 1: n = 5, tau = -0.2"),
        ({"alpha": -0.2}, "invariant needs 0 <= alpha < 0.5: n = 5, alpha = -0.2"),
        ({"alpha": 0.45}, r"invariant needs 2\*ceil\(alpha\*n\) < n: n = 5, alpha = 0.45"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        invariant(torch.zeros(5, 2), EQUAL, **options)
