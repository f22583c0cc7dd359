import pytest
import torch

from thornbed.defenses.aggregation.trimmed_mean import trimmed_mean
from thornbed.defenses.reporting import listening


def test_by_hand():
    updates = torch.tensor([[5.0, -1.0], [1.0, -9.0], [2.0, -2.0], [9.0, -3.0], [4.0, 7.0]])
    with listening() as figures:
        result = trimmed_mean(updates, torch.full((5,), 0.2), alpha=0.2)
    assert result.tolist() == pytest.approx([11 / 3, -2.0])
    assert figures == {"trimmed_per_tail": 1}


def test_twenty_clients_keep_ten():
    updates = torch.arange(20.0).square().reshape(20, 1)
    assert trimmed_mean(updates, torch.full((20,), 0.05)).item() == sum(k * k for k in range(5, 15)) / 10


@pytest.mark.parametrize("n", range(3, 10))
def test_a_small_share_of_few_clients_still_trims_one(n):
    """Regression: a fraction that rounded to zero sliced everything away and returned 0."""
    updates = torch.ones(n, 4)
    updates[0] = 1e6
    with listening() as figures:
        assert trimmed_mean(updates, torch.full((n,), 1 / n), alpha=0.05).tolist() == [1.0] * 4
    assert figures == {"trimmed_per_tail": 1}


@pytest.mark.parametrize("outlier", [1e6, 1e30, 3e38])
def test_removed_values_are_never_added(outlier):
    """Regression: the sum minus the extremes in float32 loses everything else to two outliers."""
    updates = torch.tensor([[outlier], [0.1], [0.2], [0.4], [-outlier]])
    exact = torch.tensor([0.1, 0.2, 0.4]).double().mean().float()
    assert trimmed_mean(updates, torch.full((5,), 0.2), alpha=0.2).item() == exact.item()


def test_values_are_trimmed_in_each_coordinate_and_not_clients_by_their_weight():
    """Regression: one system trimmed clients by sample count, another sorted along the parameters."""
    updates = torch.tensor([[1.0, 30.0, 200.0], [2.0, 10.0, 300.0], [3.0, 20.0, 100.0]])
    for weights in ([1 / 3, 1 / 3, 1 / 3], [0.98, 0.01, 0.01], [0.0, 0.0, 1.0]):
        assert trimmed_mean(updates, torch.tensor(weights), alpha=0.3).tolist() == [2.0, 20.0, 200.0]


def test_alpha_zero_is_the_plain_mean():
    assert trimmed_mean(torch.tensor([[1.0], [2.0], [6.0]]), torch.full((3,), 1 / 3), alpha=0.0).tolist() == [3.0]


def test_one_outlier_more_than_a_tail_holds_moves_it():
    """The claimed breakdown point is the true one."""
    updates = torch.zeros(20, 1)
    weights = torch.full((20,), 0.05)
    updates[:5] = 1e9
    assert trimmed_mean(updates, weights).item() == 0.0
    updates[5] = 1e9
    assert trimmed_mean(updates, weights).item() == pytest.approx(1e8)


@pytest.mark.parametrize(("alpha", "n"), [(0.5, 4), (0.25, 2), (0.4, 3)])
def test_nothing_left_is_refused(alpha, n):
    message = rf"trimmed_mean needs 2\*ceil\(alpha\*n\) < n: n = {n}, alpha = {alpha}"
    with pytest.raises(ValueError, match=message):
        trimmed_mean(torch.zeros(n, 2), torch.full((n,), 1 / n), alpha=alpha)


def test_alpha_below_zero_is_refused():
    with pytest.raises(ValueError, match=r"trimmed_mean needs 0 <= alpha < 0.5: n = 3, alpha = -0.1"):
        trimmed_mean(torch.zeros(3, 2), torch.full((3,), 1 / 3), alpha=-0.1)
