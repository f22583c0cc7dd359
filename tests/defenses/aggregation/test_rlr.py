import pytest
import torch

from thornbed.defenses.aggregation.fedavg import fedavg
from thornbed.defenses.aggregation.rlr import rlr
from thornbed.defenses.reporting import listening


def equal(n):
    return torch.full((n,), 1 / n)


# Signs sum to 4, 2, 0 and -4; four clients.
UPDATES = torch.tensor([[1.0, 1.0, 1.0, -1.0], [2.0, 1.0, 1.0, -1.0], [3.0, 1.0, -1.0, -1.0], [94.0, -9.0, -3.0, -5.0]])


def test_by_hand():
    with listening() as figures:
        result = rlr(UPDATES, equal(4), threshold=0.6)  # 2.4, so 3 clients
    assert result.tolist() == [25.0, 1.5, 0.5, -2.0]  # means are 25, -1.5, -0.5 and -2
    assert figures == {"flipped_share": 0.5}


def test_the_boundary_of_the_threshold_is_enough():
    updates = torch.tensor([[1.0]] * 14 + [[-1.0]] * 6)  # |sum of signs| is 8 of 20
    assert rlr(updates, equal(20), threshold=0.4).item() == pytest.approx(0.4)
    assert rlr(updates, equal(20), threshold=0.41).item() == pytest.approx(-0.4)


def test_the_default_is_the_share_of_the_paper():
    """4 of 10 clients."""
    for agree, sign in ((7, 1), (6, -1)):
        updates = torch.tensor([[1.0]] * agree + [[-1.0]] * (10 - agree))
        assert rlr(updates, equal(10)).item() == pytest.approx(sign * (2 * agree - 10) / 10)


def test_threshold_zero_is_fedavg():
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4])
    with listening() as figures:
        assert torch.equal(rlr(UPDATES, weights, threshold=0.0), fedavg(UPDATES, weights))
    assert figures == {"flipped_share": 0.0}


def test_the_mean_goes_by_the_claims_and_the_votes_do_not():
    updates = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
    assert rlr(updates, torch.tensor([0.7, 0.1, 0.1, 0.1]), threshold=0.1).item() == pytest.approx(-0.6)


def test_a_mean_of_zero_stays_zero_and_is_not_counted():
    updates = torch.tensor([[0.0, 1.0, -0.0], [0.0, -1.0, 0.0]])
    with listening() as figures:
        result = rlr(updates, equal(2), threshold=1.0)
    assert result.numpy().tobytes() == torch.zeros(3).numpy().tobytes()
    assert figures == {"flipped_share": 0.0}


@pytest.mark.parametrize("threshold", [-0.1, 1.1, 4.0, float("nan")])
def test_a_threshold_that_is_no_share_is_refused(threshold):
    with pytest.raises(ValueError, match=f"rlr needs 0 <= threshold <= 1: n = 4, threshold = {threshold}"):
        rlr(UPDATES, equal(4), threshold=threshold)


def test_weights_that_are_no_shares_are_refused():
    with pytest.raises(ValueError, match="rlr needs weights >= 0 that sum to 1: smallest = 1, sum = 4"):
        rlr(UPDATES, torch.ones(4))
