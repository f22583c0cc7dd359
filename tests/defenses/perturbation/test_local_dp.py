"""Clipping and noise, first one and then the other."""

from __future__ import annotations

import pytest
import torch

from thornbed.defenses.perturbation.local_dp import local_dp
from thornbed.defenses.reporting import listening


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_without_noise_a_long_update_is_clipped_and_a_short_one_stays() -> None:
    with listening() as figures:
        sent = local_dp(torch.tensor([3.0, 0.0, 4.0]), generator(), clip_norm=2.5, noise_multiplier=0.0)
    assert sent.tolist() == [1.5, 0.0, 2.0]
    assert figures == {"norm": 5.0, "clipped_share": 1, "noise_share": 0.0}
    with listening() as figures:
        sent = local_dp(torch.tensor([3.0, 0.0, 4.0]), generator(), clip_norm=5.0, noise_multiplier=0.0)
    assert sent.tolist() == [3.0, 0.0, 4.0]
    assert figures == {"norm": 5.0, "clipped_share": 0, "noise_share": 0.0}


def test_the_noise_is_that_of_the_clip_norm_and_not_of_the_update() -> None:
    for scale in (0.0, 1e-3, 1e3):
        update = torch.full((100_000,), scale)
        clean = local_dp(update, generator(), clip_norm=2.0, noise_multiplier=0.0)
        noise = local_dp(update, generator(), clip_norm=2.0, noise_multiplier=0.5) - clean
        assert noise.mean().item() == pytest.approx(0.0, abs=0.02)
        assert noise.std().item() == pytest.approx(1.0, rel=0.02)


def test_the_norm_of_many_small_numbers_is_exact() -> None:
    with listening() as figures:
        local_dp(torch.full((4_000_000,), 1e-3), generator(), noise_multiplier=0.0)
    assert figures["norm"] == pytest.approx(2.0, rel=1e-7)


def test_no_update_is_no_division_by_zero() -> None:
    assert local_dp(torch.zeros(3), generator(), noise_multiplier=0.0).tolist() == [0, 0, 0]


def test_a_diverged_update_stays_one() -> None:
    assert local_dp(torch.tensor([float("nan"), 1.0]), generator()).isnan().any()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"clip_norm": 0.0}, "clip_norm > 0: clip_norm = 0.0"),
        ({"noise_multiplier": -0.5}, "noise_multiplier >= 0: noise_multiplier = -0.5"),
    ],
)
def test_refused_options(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        local_dp(torch.ones(3), generator(), **options)


def test_signal_and_noise_by_hand() -> None:
    """The defaults: clipped to 1, and 0.1 times what the generator draws; float64 stays float64."""
    update = torch.tensor([3.0, 0.0, 4.0], dtype=torch.float64)
    drawn = 0.1 * torch.randn(3, generator=generator(), dtype=torch.float64)
    with listening() as figures:
        sent = local_dp(update, generator())
    torch.testing.assert_close(sent, torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64) + drawn)
    loud = float(drawn.norm())
    assert figures["noise_share"] == pytest.approx(loud / (loud + 1.0))
    assert not torch.equal(sent, local_dp(update, generator(1)))
    with listening() as figures:
        local_dp(torch.zeros(3), generator(), noise_multiplier=0.0)
    assert figures["noise_share"] == 0.0
