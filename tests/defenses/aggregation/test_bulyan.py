import pytest
import torch

from thornbed.defenses.aggregation.bulyan import bulyan
from thornbed.defenses.aggregation.krum import krum
from thornbed.defenses.reporting import listening


def equal(n):
    return torch.full((n,), 1 / n)


LINE = torch.tensor([[0.0], [1.0], [3.0], [7.0], [12.0], [20.0], [1000.0]])


def test_by_hand():
    # f = 1, so five are selected, by the sum of the squared distances to the closest 4, 3, 2, 1 and then still 1:
    # of all seven 3 has 110 and 7 has 126; of six 7 has 110 and 1 has 158; of five 1 has 122 and 0 has 145; of 0, 12,
    # 20 and 1000 the pair 12, 20 ties at 64, and 20 is closer to 1000; of 0, 12, 1000 the pair 0, 12 ties, and 12 is.
    # Of 1, 3, 7, 12 and 20 the three closest to the median 7 are 3, 7 and 12.
    with listening() as figures:
        result = bulyan(LINE, equal(7))
    assert figures == {"selected": [1, 2, 3, 4, 5], "num_byzantine": 1}
    assert result.item() == pytest.approx((3 + 7 + 12) / 3)


def test_of_two_values_equally_far_the_smaller_stays():
    updates = torch.tensor([[1.0], [2.0], [5.0], [8.0], [9.0], [100.0], [-90.0]])
    with listening() as figures:
        result = bulyan(updates, equal(7))
    assert figures["selected"] == [0, 1, 2, 3, 4]
    assert result.item() == 5.0


def test_without_attackers_it_is_the_plain_mean():
    with listening() as figures:
        result = bulyan(LINE, equal(7), num_byzantine=0)
    assert result.item() == 149.0
    assert figures["selected"] == list(range(7))


def test_a_large_value_in_one_coordinate_is_left_out_where_krum_would_let_it_pass():
    """The hidden vulnerability: one coordinate moved by as much as the distance between honest clients."""
    generator = torch.Generator().manual_seed(0)
    updates = torch.randn(11, 1000, generator=generator)
    updates[0] = updates[1:].mean(0)
    updates[0, 17] = 25.0
    assert krum(updates, equal(11), num_byzantine=2)[17] == 25.0
    with listening() as figures:
        result = bulyan(updates, equal(11))
    assert 0 in figures["selected"]
    assert result[17].abs() < 2


@pytest.mark.parametrize(("n", "f"), [(6, 0), (7, 1), (10, 1), (11, 2), (20, 4), (50, 11)])
def test_the_default_is_the_largest_number_allowed(n, f):
    with listening() as figures:
        bulyan(torch.randn(n, 5, generator=torch.Generator().manual_seed(n)), equal(n))
    assert figures["num_byzantine"] == f
    assert len(figures["selected"]) == n - 2 * f


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [7, 11, 15])
def test_neighbours_that_tie_do_not_bring_in_the_order_of_the_clients(n, seed):
    generator = torch.Generator().manual_seed(seed)
    updates, order = torch.randn(n, 6, generator=generator), torch.randperm(n, generator=generator)
    assert torch.equal(bulyan(updates[order], equal(n)), bulyan(updates, equal(n)))


@pytest.mark.parametrize(
    ("num_byzantine", "message"),
    [
        (2, "bulyan needs n >= 4f [+] 3: n = 7, f = 2"),
        (-1, "bulyan needs num_byzantine >= 0: n = 7, num_byzantine = -1"),
    ],
)
def test_refusals(num_byzantine, message):
    with pytest.raises(ValueError, match=message):
        bulyan(LINE, equal(7), num_byzantine=num_byzantine)


def test_too_few_clients_are_refused():
    with pytest.raises(ValueError, match=r"bulyan needs n >= 4f \+ 3: n = 2, f = 0"):
        bulyan(torch.zeros(2, 2), equal(2))
