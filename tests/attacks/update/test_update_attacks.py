"""Attacks on the update of three coordinates, and on enough of them to see a distribution."""

from __future__ import annotations

import pytest
import torch

from thornbed.attacks.update import Sight
from thornbed.attacks.update.adaptive import adaptive
from thornbed.attacks.update.gaussian import gaussian
from thornbed.attacks.update.mimic import mimic
from thornbed.attacks.update.scaling import scaling
from thornbed.attacks.update.sign_flip import sign_flip

PEERS = torch.tensor([[1.0, -2.0, 0.5], [7.0, 7.0, 7.0]])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sight(benign: list[float], last_step: list[float] | None) -> Sight:
    """Return what an attacker sees, as numbers."""
    step = None if last_step is None else torch.tensor(last_step)
    return Sight(benign=lambda: torch.tensor(benign), last_step=lambda: step)


def test_sign_flip_is_the_opposite_of_its_own_update() -> None:
    assert sign_flip(PEERS, generator()).tolist() == [-1.0, 2.0, -0.5]
    assert sign_flip(PEERS, generator(), factor=4.0).tolist() == [-4.0, 8.0, -2.0]


def test_scaling_multiplies_its_own_update() -> None:
    assert scaling(PEERS, generator()).tolist() == [10.0, -20.0, 5.0]
    assert scaling(PEERS, generator(), factor=0.5).tolist() == [0.5, -1.0, 0.25]


def test_scaling_by_one_over_its_weight_replaces_the_model() -> None:
    start, wanted = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([4.0, -2.0, 0.0])
    # near convergence the honest updates cancel
    honest = torch.tensor([[0.25, 0.5, -1.0], [-0.25, -0.5, 1.0], [0.0, 0.0, 0.0]])
    sent = scaling((wanted - start)[None], generator(), factor=4.0)
    assert (start + torch.cat([sent[None], honest]).mean(dim=0)).tolist() == wanted.tolist()


@pytest.mark.parametrize("std", [200.0, 0.01])
def test_gaussian_has_mean_zero_and_the_deviation_asked_for(std: float) -> None:
    sent = gaussian(torch.full((1, 100_000), 5.0), generator(), std=std)
    assert sent.mean().item() == pytest.approx(0.0, abs=0.02 * std)
    assert sent.std().item() == pytest.approx(std, rel=0.02)
    # a share of 0.683 lies within one deviation of a normal distribution; of a uniform one it would be 0.577
    assert (sent.abs() < std).float().mean().item() == pytest.approx(0.683, abs=0.01)


def test_gaussian_uses_nothing_of_the_honest_update_and_is_that_of_the_paper() -> None:
    assert torch.equal(gaussian(PEERS, generator()), gaussian(torch.zeros(1, 3), generator(), std=200.0))


def test_adaptive_gives_what_passes_the_last_mask_the_norm_of_the_whole() -> None:
    own = torch.tensor([[3.0, -4.0, 12.0, 0.0], [9.0, 9.0, 9.0, 9.0]])
    sent = adaptive(own, generator(), sight([0.0] * 4, [-0.1, 0.0, 0.0, 2.0]))
    # of |own| = 13 only the 3 passes; the sign of the step plays no part
    assert sent.tolist() == pytest.approx([13.0, -4.0, 12.0, 0.0])
    sent = adaptive(own, generator(), sight([0.0] * 4, [0.5, 1e-30, 0.0, 0.0]))
    assert sent.tolist() == pytest.approx([7.8, -10.4, 12.0, 0.0])
    assert float(sent[:2].norm()) == pytest.approx(13.0)


@pytest.mark.parametrize(
    "last_step", [None, [1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 5.0]],
    ids=["no step seen", "nothing was masked", "all was masked", "nothing of the update passes"],
)  # fmt: skip
def test_adaptive_sends_what_it_has_where_there_is_nothing_to_gain(last_step: list[float] | None) -> None:
    own = torch.tensor([[3.0, 4.0, 0.0]])
    assert adaptive(own, generator(), sight([0.0] * 3, last_step)).tolist() == [3.0, 4.0, 0.0]


@pytest.mark.parametrize(
    ("num_kept", "sent"),
    [
        (0, [1.0, 2.0, 3.0, 4.0]),
        (1, [1.0, 2.0, -7.0, 4.0]),
        (2, [5.0, 2.0, -7.0, 4.0]),  # of two of one size the first
        (3, [5.0, -5.0, -7.0, 4.0]),
        (4, [5.0, -5.0, -7.0, 0.5]),
        (9, [5.0, -5.0, -7.0, 0.5]),
    ],
)
def test_mimic_keeps_its_largest_elements_and_copies_the_others(num_kept: int, sent: list[float]) -> None:
    own = torch.tensor([[5.0, -5.0, -7.0, 0.5], [9.0, 9.0, 9.0, 9.0]])
    assert mimic(own, generator(), sight([1.0, 2.0, 3.0, 4.0], None), num_kept=num_kept).tolist() == sent


def test_mimic_keeps_the_thousand_of_the_paper() -> None:
    own, benign = torch.arange(1.0, 1501.0)[None], [0.0] * 1500
    assert int((mimic(own, generator(), sight(benign, None)) != 0).sum()) == 1000
