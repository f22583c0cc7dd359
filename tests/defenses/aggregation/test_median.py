import pytest
import torch

from thornbed.defenses.aggregation.median import median
from thornbed.defenses.reporting import listening


@pytest.mark.parametrize(
    ("values", "middle"),
    [
        ([7.0], 7.0),
        ([1.0, 4.0], 2.5),
        ([9.0, -1.0, 2.0], 2.0),
        ([9.0, -1.0, 2.0, 4.0], 3.0),  # an even number: the mean of the two middle ones, not the lower one
        ([5.0, 5.0, 1.0, 5.0, 9.0], 5.0),
    ],
)
def test_by_hand(values, middle):
    n = len(values)
    with listening() as figures:
        result = median(torch.tensor(values).reshape(n, 1), torch.full((n,), 1 / n))
    assert result.tolist() == [middle]
    assert figures == {"trimmed_per_tail": (n - 1) // 2}


def test_the_middle_two_do_not_overflow():
    assert median(torch.tensor([[3e38], [3e38]]), torch.tensor([0.5, 0.5])).item() == pytest.approx(3e38)


def test_claimed_weights_are_ignored():
    assert median(torch.tensor([[1.0], [2.0], [9.0]]), torch.tensor([0.0, 0.0, 1.0])).tolist() == [2.0]


def test_half_of_the_clients_move_it_and_fewer_do_not():
    updates = torch.zeros(20, 1)
    weights = torch.full((20,), 0.05)
    updates[:9] = 1e9
    assert median(updates, weights).item() == 0.0
    updates[9] = 1e9
    assert median(updates, weights).item() == pytest.approx(5e8)
