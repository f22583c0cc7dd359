import pytest
import torch

from thornbed.defenses.aggregation.sign_sgd import sign_sgd
from thornbed.defenses.reporting import listening


def equal(n):
    return torch.full((n,), 1 / n)


# Votes by coordinate: 3 to 0; 1 to 2; a tie of 1 to 1 and a zero; zeros only. Mean magnitudes 4, 1 and 2.
VOTES = torch.tensor([[6.0, 9.0, 1.0, 0.0], [2.0, -1.0, -1.0, -0.0], [3.0, -5.0, 0.0, 0.0]])


def test_by_hand():
    with listening() as figures:
        result = sign_sgd(VOTES, equal(3), step_size=0.5)
    assert result.tolist() == [0.5, -0.5, 0.0, 0.0]
    assert figures == {"overruled_share": 2 / 12, "step_size": 0.5}


def test_the_step_is_the_median_of_the_mean_magnitudes():
    with listening() as figures:
        result = sign_sgd(VOTES, equal(3))
    assert figures["step_size"] == 2.0
    assert result.tolist() == [2.0, -2.0, 0.0, 0.0]


@pytest.mark.parametrize("size", [1e-30, 1e6, 1e30])
def test_a_minority_moves_neither_a_unanimous_vote_nor_the_step_out_of_the_honest_range(size):
    generator = torch.Generator().manual_seed(3)
    updates = 0.01 * torch.randn(20, 400, generator=generator)
    updates[:, ::2] = updates[:, ::2].abs()
    updates[:9] = -size
    with listening() as figures:
        result = sign_sgd(updates, equal(20))
    honest = updates[9:].abs().mean(dim=1)
    assert honest.min() * 0.999 <= figures["step_size"] <= honest.max() * 1.001
    assert (result[::2] > 0).all()


def test_claims_are_no_votes():
    assert torch.equal(sign_sgd(VOTES, torch.tensor([0.98, 0.01, 0.01])), sign_sgd(VOTES, equal(3)))


def test_unanimous_votes_overrule_nobody():
    with listening() as figures:
        sign_sgd(torch.tensor([[1.0, -2.0], [3.0, -4.0]]), equal(2))
    assert figures["overruled_share"] == 0.0


@pytest.mark.parametrize("step_size", [0.0, -1.0, float("inf"), float("nan")])
def test_a_step_that_is_none_is_refused(step_size):
    with pytest.raises(ValueError, match=f"sign_sgd needs a finite step_size > 0: n = 3, step_size = {step_size}"):
        sign_sgd(VOTES, equal(3), step_size=step_size)


def test_a_step_of_float64_is_not_rounded():
    updates = torch.full((3, 2), 1 + 1e-9, dtype=torch.float64)
    updates[:, 1] *= -1
    assert sign_sgd(updates, equal(3)).tolist() == [1 + 1e-9, -1 - 1e-9]
    assert sign_sgd(updates, equal(3), step_size=0.1).tolist() == [0.1, -0.1]
