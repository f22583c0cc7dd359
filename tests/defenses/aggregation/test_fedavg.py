import pytest
import torch

from thornbed.defenses.aggregation.fedavg import fedavg
from thornbed.defenses.reporting import listening


def test_by_hand():
    updates = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, -40.0]])
    assert fedavg(updates, torch.tensor([0.5, 0.25, 0.25])).tolist() == [2.0, 0.0]


def test_rounding_of_the_weights_does_not_move_equal_updates():
    updates = torch.full((7, 3), 0.1)
    weights = torch.full((7,), 1 / 7)  # seven of these do not sum to 1 in float32
    assert torch.equal(fedavg(updates, weights), updates[0])


def test_cancelling_updates_keep_what_is_left():
    updates = torch.tensor([[1e8], [1.0], [-1e8], [1.0]])
    assert fedavg(updates, torch.full((4,), 0.25)).tolist() == [0.5]


def test_a_weight_of_zero_counts_for_nothing():
    assert fedavg(torch.tensor([[1.0], [1e30]]), torch.tensor([1.0, 0.0])).tolist() == [1.0]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 1.0], "fedavg needs weights >= 0 that sum to 1: smallest = 1, sum = 2"),
        ([1.5, -0.5], "fedavg needs weights >= 0 that sum to 1: smallest = -0.5, sum = 1"),
        ([float("nan"), 1.0], "fedavg needs weights >= 0 that sum to 1: smallest = nan, sum = nan"),
    ],
)
def test_weights_that_are_no_shares_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        fedavg(torch.zeros(2, 3), torch.tensor(weights))


def test_no_defense_reports_nothing():
    with listening() as figures:
        fedavg(torch.zeros(2, 3), torch.tensor([0.5, 0.5]))
    assert figures == {}
