import pytest
import torch

from thornbed.defenses.aggregation.rfa import rfa
from thornbed.defenses.reporting import listening


def equal(n):
    return torch.full((n,), 1 / n)


def test_on_a_line_it_is_the_middle_client():
    updates = torch.tensor([[0.0], [1.0], [3.0], [50.0], [1e6]])
    assert rfa(updates, equal(5)).item() == pytest.approx(3.0, abs=1e-4)


def test_of_a_triangle_it_is_the_fermat_point():
    """All sides are seen from it at 120 degrees: for a right angle between legs 1 and 1, (3 - sqrt(3)) / 6 in both."""
    updates = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    result = rfa(updates, equal(3))
    assert result.tolist() == pytest.approx([(3 - 3**0.5) / 6] * 2, abs=1e-7)


def test_of_a_convex_quadrangle_it_is_where_the_diagonals_cross():
    updates = torch.tensor([[-1.0, 0.0], [0.0, -3.0], [2.0, 0.0], [0.0, 1.0]]) + torch.tensor([5.0, 7.0])
    assert rfa(updates, equal(4)).tolist() == pytest.approx([5.0, 7.0], abs=1e-6)


def test_one_iteration_by_hand():
    # The coordinate-wise median is (1, 0); distances to it 1, 0 and 2; smoothing by half of their median: 1, 1/2 and 2.
    updates = torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]])
    with listening() as figures:
        result = rfa(updates, equal(3), num_iterations=1, smoothing=0.5)
    assert figures["weiszfeld_weights"] == pytest.approx([2 / 7, 4 / 7, 1 / 7])
    assert figures["downweighted_share"] == pytest.approx(1 / 3)  # 1/7 is less than half of 1/3
    assert figures["iterations"] == 1
    assert result.tolist() == pytest.approx([1.0, 0.0])


def test_a_majority_that_agrees_is_the_result():
    updates = torch.tensor([[0.1, 0.2]] * 4 + [[1e20, -3.0], [5.0, 5.0], [-7.0, 1e-20]])
    assert torch.equal(rfa(updates, equal(7)), updates[0])


@pytest.mark.parametrize("size", [1.0, 1e6, 1e20, 1e30])
@pytest.mark.parametrize("number", [1, 5, 9])
def test_a_minority_leads_it_away_by_a_multiple_of_the_honest_radius_only(size, number):
    """Within 2 (1 - q) / (1 - 2 q) radii of the honest clients' centre, q being the share of attackers."""
    updates = 0.01 * torch.randn(20, 300, generator=torch.Generator().manual_seed(number))
    updates[:number] = size
    honest = updates[number:].double()
    centre = honest.mean(0)
    radius = (honest - centre).norm(dim=1).max()
    share = number / 20
    result = rfa(updates, equal(20)).double()
    assert (result - centre).norm() <= 2 * (1 - share) / (1 - 2 * share) * radius


def test_half_of_the_clients_lead_it_anywhere():
    """The breakdown point claimed is the true one."""
    updates = 0.01 * torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    updates[:11] = 1e6
    assert rfa(updates, equal(20)).min() > 9e5


def test_far_clients_are_downweighted_and_it_says_so():
    updates = 0.01 * torch.randn(20, 300, generator=torch.Generator().manual_seed(2))
    with listening() as figures:
        rfa(updates, equal(20))
    assert figures["downweighted_share"] == 0.0
    updates[4:7] *= 30
    with listening() as figures:
        rfa(updates, equal(20))
    assert figures["downweighted_share"] == 3 / 20
    assert max(figures["weiszfeld_weights"][4:7]) < 0.5 / 20


def test_smoothing_is_relative_to_the_round():
    updates = torch.randn(9, 50, generator=torch.Generator().manual_seed(3))
    for factor in (2.0**-40, 2.0**40):
        assert torch.equal(
            rfa(factor * updates, equal(9), smoothing=1.5), factor * rfa(updates, equal(9), smoothing=1.5)
        )


@pytest.mark.parametrize("num_iterations", [0, -3])
def test_no_iterations_are_refused(num_iterations):
    with pytest.raises(ValueError, match=f"rfa needs num_iterations >= 1: n = 3, num_iterations = {num_iterations}"):
        rfa(torch.zeros(3, 2), equal(3), num_iterations=num_iterations)


@pytest.mark.parametrize("smoothing", [0.0, -1.0, float("inf"), float("nan")])
def test_smoothing_out_of_range_is_refused(smoothing):
    with pytest.raises(ValueError, match=f"rfa needs a finite smoothing > 0: n = 3, smoothing = {smoothing}"):
        rfa(torch.zeros(3, 2), equal(3), smoothing=smoothing)
