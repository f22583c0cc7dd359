import pytest
import torch

from thornbed.defenses.aggregation.norm_clipping import norm_clipping
from thornbed.defenses.reporting import listening


def equal(n):
    return torch.full((n,), 1 / n)


UPDATES = torch.tensor([[3.0, 4.0], [0.0, 1.0], [-6.0, 8.0], [0.0, 0.0]])  # norms 5, 1, 10 and 0


def test_by_hand():
    with listening() as figures:
        result = norm_clipping(UPDATES, equal(4), norm=5.0)
    assert result.tolist() == [0.0, 2.25]  # (3 + 0 - 3 + 0) / 4 and (4 + 1 + 4 + 0) / 4
    assert figures == {"clipped_share": 0.25, "norms": [5.0, 1.0, 10.0, 0.0], "clip_norm": 5.0}


def test_without_a_bound_it_is_the_median_of_the_norms():
    with listening() as figures:
        result = norm_clipping(UPDATES, equal(4))
    assert figures["clip_norm"] == 3.0
    assert figures["clipped_share"] == 0.5
    assert result.tolist() == pytest.approx([0.0, (2.4 + 1 + 2.4) / 4])


def test_a_bound_that_nobody_reaches_gives_the_plain_mean_and_says_so():
    with listening() as figures:
        assert norm_clipping(UPDATES, equal(4), norm=11.0).tolist() == [-0.75, 3.25]
    assert figures["clipped_share"] == 0.0


@pytest.mark.parametrize("size", [1e3, 1e20, 3e38])
def test_a_client_moves_the_result_by_at_most_twice_the_bound_over_n(size):
    updates = torch.randn(20, 50, generator=torch.Generator().manual_seed(0))
    calm = norm_clipping(updates, equal(20), norm=7.0)
    updates[6] = -size
    assert (norm_clipping(updates, equal(20), norm=7.0) - calm).norm() <= 2 * 7.0 / 20


def test_a_minority_cannot_lift_the_bound_beyond_the_honest_norms():
    updates = torch.randn(20, 50, generator=torch.Generator().manual_seed(0))
    updates[:9] *= 1e10
    with listening() as figures:
        norm_clipping(updates, equal(20))
    assert figures["clip_norm"] <= updates[9:].norm(dim=1).max() * 1.0001


def test_claims_do_not_lift_the_bound():
    greedy = torch.tensor([0.01, 0.01, 0.97, 0.01])
    assert torch.equal(norm_clipping(UPDATES, greedy), norm_clipping(UPDATES, equal(4)))


def test_where_most_send_zeros_the_rest_is_shortened_to_nothing():
    updates = torch.zeros(5, 3)
    updates[1] = 9.0
    assert norm_clipping(updates, equal(5)).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("norm", [0.0, -1.0, float("inf"), float("nan")])
def test_a_bound_out_of_range_is_refused(norm):
    with pytest.raises(ValueError, match=f"norm_clipping needs a finite norm > 0: n = 4, norm = {norm}"):
        norm_clipping(UPDATES, equal(4), norm=norm)
