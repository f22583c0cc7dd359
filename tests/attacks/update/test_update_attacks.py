"""Attacks on the update of three coordinates, and on enough of them to see a distribution."""

from __future__ import annotations

import pytest
import torch

from attacks.update.gaussian import gaussian
from attacks.update.scaling import scaling
from attacks.update.sign_flip import sign_flip

PEERS = torch.tensor([[1.0, -2.0, 0.5], [7.0, 7.0, 7.0]])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
