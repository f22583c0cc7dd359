import pytest
import torch

from thornbed.defenses.aggregation.krum_trimmed_mean import krum_trimmed_mean
from thornbed.defenses.aggregation.multi_krum import multi_krum
from thornbed.defenses.reporting import listening


def equal(n):
    return torch.full((n,), 1 / n)


LINE = torch.tensor([[0.0], [1.0], [3.0], [7.0], [100.0]])  # scores 10, 5, 13, 52, 18058 with f = 1


def test_by_hand():
    with listening() as figures:
        result = krum_trimmed_mean(LINE, equal(5), num_byzantine=1, alpha=0.25)
    assert result.tolist() == [2.0]  # 0, 1, 3 and 7 are selected, and of them 0 and 7 trimmed
    assert figures == {
        "selected": [0, 1, 2, 3],
        "scores": [10.0, 5.0, 13.0, 52.0, 18058.0],
        "num_byzantine": 1,
        "trimmed_per_tail": 1,
    }


def test_the_tails_are_a_share_of_those_selected():
    updates = torch.arange(20.0).reshape(20, 1).square()
    with listening() as figures:
        krum_trimmed_mean(updates, equal(20), alpha=0.25)
    assert len(figures["selected"]) == 12
    assert figures["trimmed_per_tail"] == 3


def test_the_rows_left_out_are_never_read_again():
    updates = LINE.clone()
    updates[4] = 3e38
    assert krum_trimmed_mean(updates, equal(5), num_byzantine=1).tolist() == [2.0]


def test_what_krum_lets_through_is_trimmed():
    """An update that is far in one coordinate only: Multi-Krum selects it, and the trimmed mean cuts it there."""
    updates = torch.randn(9, 100, generator=torch.Generator().manual_seed(1))
    updates[0] = updates[1:].mean(0)
    updates[0, 7] = 8.0
    with listening() as figures:
        result = krum_trimmed_mean(updates, equal(9), num_byzantine=1)
    assert 0 in figures["selected"]
    assert result[7] <= updates[1:, 7].max()


def test_without_trimming_it_is_multi_krum():
    updates = torch.randn(11, 30, generator=torch.Generator().manual_seed(4))
    assert torch.equal(krum_trimmed_mean(updates, equal(11), alpha=0.0), multi_krum(updates, equal(11)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_byzantine": 2}, "krum_trimmed_mean needs n >= 2f [+] 3: n = 5, f = 2"),
        ({"alpha": 0.5}, r"krum_trimmed_mean needs 2[*]ceil[(]alpha[*]n[)] < n: n = 4, alpha = 0.5"),
        ({"alpha": -0.1}, "krum_trimmed_mean needs 0 <= alpha < 0.5: n = 4, alpha = -0.1"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        krum_trimmed_mean(LINE, equal(5), **options)
