import pytest
import torch

from thornbed.defenses.aggregation.krum import krum
from thornbed.defenses.aggregation.multi_krum import multi_krum
from thornbed.defenses.reporting import listening

LINE = torch.tensor([[0.0], [1.0], [3.0], [7.0], [100.0]])  # scores 10, 5, 13, 52, 18058 with f = 1


def equal(n):
    return torch.full((n,), 1 / n)


@pytest.mark.parametrize(
    ("num_selected", "rows", "mean"),
    [(1, [1], 1.0), (2, [0, 1], 0.5), (3, [0, 1, 2], 4 / 3), (4, [0, 1, 2, 3], 2.75), (None, [0, 1, 2, 3], 2.75)],
)
def test_by_hand(num_selected, rows, mean):
    with listening() as figures:
        result = multi_krum(LINE, equal(5), num_byzantine=1, num_selected=num_selected)
    assert result.tolist() == pytest.approx([mean])
    assert figures["selected"] == rows
    assert figures["scores"] == [10.0, 5.0, 13.0, 52.0, 18058.0]
    assert figures["num_byzantine"] == 1


def test_the_rows_left_out_are_never_read():
    updates = LINE.clone()
    updates[4] = 3e38
    assert multi_krum(updates, equal(5), num_byzantine=1).tolist() == [2.75]


def test_one_selected_is_krum():
    updates = torch.randn(11, 30, generator=torch.Generator().manual_seed(4))
    assert torch.equal(multi_krum(updates, equal(11), num_selected=1), krum(updates, equal(11)))


def test_claimed_weights_are_ignored_among_the_selected():
    greedy = torch.tensor([0.96, 0.01, 0.01, 0.01, 0.01])
    assert torch.equal(multi_krum(LINE, greedy, num_byzantine=1), multi_krum(LINE, equal(5), num_byzantine=1))


def test_ties_go_to_the_lowest_rows():
    updates = torch.zeros(6, 2)
    with listening() as figures:
        multi_krum(updates, equal(6), num_byzantine=1, num_selected=2)
    assert figures["selected"] == [0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_byzantine": 2}, "multi_krum needs n >= 2f [+] 3: n = 5, f = 2"),
        ({"num_selected": 0}, "multi_krum needs 1 <= num_selected <= n - f: num_selected = 0, n - f = 4"),
        ({"num_selected": 5}, "multi_krum needs 1 <= num_selected <= n - f: num_selected = 5, n - f = 4"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        multi_krum(LINE, equal(5), **options)
