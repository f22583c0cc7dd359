import pytest
import torch

from thornbed.defenses.aggregation.and_mask import and_mask
from thornbed.defenses.reporting import listening


def test_by_hand():
    # Signs sum to 4, 2, 0 and -4; above 0.5 of 4 are 3 and more. What passes is the plain mean, outlier included.
    updates = torch.tensor(
        [[1.0, 1.0, 1.0, -1.0], [2.0, 1.0, 1.0, -1.0], [3.0, 1.0, -1.0, -1.0], [94.0, -9.0, -1.0, -5.0]]
    )
    with listening() as figures:
        result = and_mask(updates, torch.full((4,), 0.25), tau=0.5)
    assert result.tolist() == [25.0, 0.0, 0.0, -2.0]
    assert figures == {"masked_share": 0.5}


def test_the_boundary_of_tau_is_strict():
    updates = torch.tensor([[1.0]] * 12 + [[-1.0]] * 8)
    weights = torch.full((20,), 0.05)
    assert and_mask(updates, weights, tau=0.2).item() == 0.0
    assert and_mask(updates, weights, tau=0.19).item() == pytest.approx(0.2)


def test_claimed_weights_are_ignored():
    updates = torch.tensor([[1.0], [2.0], [3.0]])
    assert and_mask(updates, torch.tensor([0.98, 0.01, 0.01])).tolist() == [2.0]


@pytest.mark.parametrize("tau", [1.0, -0.1, 20.0])
def test_tau_out_of_range_is_refused(tau):
    with pytest.raises(ValueError, match=f"and_mask needs 0 <= tau < 1: n = 3, tau = {tau}"):
        and_mask(torch.zeros(3, 2), torch.full((3,), 1 / 3), tau=tau)
