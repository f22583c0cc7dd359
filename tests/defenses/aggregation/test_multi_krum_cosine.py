import pytest
import torch

from thornbed.defenses.aggregation.multi_krum_cosine import multi_krum_cosine
from thornbed.defenses.reporting import listening


def equal(n):
    return torch.full((n,), 1 / n)


# Directions at 0, 90, 90, 180 and 0 degrees and lengths that must not matter: 1 - cos is 0, 1 or 2.
COMPASS = torch.tensor([[1.0, 0.0], [0.0, 5.0], [0.0, 0.25], [-9.0, 0.0], [3.0, 0.0]])


def test_by_hand():
    with listening() as figures:
        result = multi_krum_cosine(COMPASS, equal(5), num_byzantine=1)  # the closest two others of each
    assert figures["scores"] == pytest.approx([1.0, 1.0, 1.0, 2.0, 1.0], abs=1e-15)
    assert figures["selected"] == [0, 1, 2, 4]
    assert figures["num_byzantine"] == 1
    assert result.tolist() == [1.0, 1.3125]


def test_lengths_do_not_enter_the_scores():
    updates = torch.randn(9, 40, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([2.0**k for k in range(-40, 41, 10)])[:, None]
    with listening() as figures:
        multi_krum_cosine(updates, equal(9))
    with listening() as scaled:
        multi_krum_cosine(lengths * updates, equal(9))
    assert scaled == figures


def test_a_long_update_in_an_honest_direction_is_selected_and_leads_the_mean():
    """What it does not withstand, and Multi-Krum does."""
    updates = torch.ones(5, 2) + 0.1 * torch.eye(5, 2)
    updates[4] = 1e6
    assert multi_krum_cosine(updates, equal(5), num_byzantine=1).min() > 1e5


def test_a_translation_changes_what_is_selected():
    updates = torch.tensor([[1.0, 0.1], [1.0, 0.0], [1.0, -0.1], [0.9, 0.2], [2.0, 0.0]])
    shift = torch.tensor([-1.5, 0.0])
    with listening() as before:
        multi_krum_cosine(updates, equal(5), num_byzantine=1)
    with listening() as after:
        multi_krum_cosine(updates + shift, equal(5), num_byzantine=1)
    assert before["selected"] == [0, 1, 2, 4]
    assert after["selected"] == [0, 1, 2, 3]


def test_updates_of_zeros_are_orthogonal_to_all():
    updates = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.1]])
    with listening() as figures:
        multi_krum_cosine(updates, equal(5), num_byzantine=1)
    assert figures["scores"][2:4] == [2.0, 2.0]
    assert max(figures["scores"][:2] + figures["scores"][4:]) < 0.01
    assert multi_krum_cosine(torch.zeros(5, 2), equal(5)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("angle", [1e-4, 1e-5, 1e-6])
def test_angles_between_updates_that_nearly_agree(angle):
    """1 - cos is angle^2 / 2 there; from a float64 dot product it would be right to 1e-16 / angle^2 only."""
    updates = torch.tensor([[1.0, 0.0], [1.0, angle], [1.0, 3 * angle]])
    with listening() as figures:
        multi_krum_cosine(updates, equal(3), num_byzantine=0)
    sines = updates[:, 1].double().tolist()
    expected = [(sines[1] - sines[0]) ** 2 / 2, (sines[1] - sines[0]) ** 2 / 2, (sines[2] - sines[1]) ** 2 / 2]
    assert figures["scores"] == pytest.approx(expected, rel=20 * angle**2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_byzantine": 2}, "multi_krum_cosine needs n >= 2f [+] 3: n = 5, f = 2"),
        ({"num_byzantine": -1}, "multi_krum_cosine needs num_byzantine >= 0: n = 5, num_byzantine = -1"),
        ({"num_selected": 5}, "multi_krum_cosine needs 1 <= num_selected <= n - f: num_selected = 5, n - f = 4"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        multi_krum_cosine(COMPASS, equal(5), **options)
