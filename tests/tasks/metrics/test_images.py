"""PSNR and SSIM by hand, and LPIPS that is absent rather than wrong."""

from __future__ import annotations

import math

import pytest
import torch

from thornbed.tasks.metrics import images
from thornbed.tasks.metrics.assignment import assign, matching_success_rate


def test_psnr_by_hand() -> None:
    a = torch.zeros(3, 1, 2, 2)
    b = a.clone()
    b[0, 0, 0, 0] = 0.2  # mean squared error 0.04 / 4 = 0.01
    b[1] = 1.0
    assert images.psnr(a, b).tolist() == [pytest.approx(20.0, abs=1e-6), pytest.approx(0.0), 100.0]


def test_psnr_has_an_end_so_that_an_exact_image_counts_in_means() -> None:
    a = torch.full((3, 1, 2, 2), 0.5, dtype=torch.float64)
    b = a + torch.tensor([1e-4, 1e-5, 1e-6], dtype=torch.float64).view(-1, 1, 1, 1)
    assert images.psnr(a, b).tolist() == [pytest.approx(80.0), pytest.approx(100.0), 100.0]
    assert images.psnr(a[:1] * math.nan, b[:1]).isnan().all()


def test_what_lies_outside_is_clipped_first() -> None:
    a, b = torch.full((1, 1, 8, 8), 7.0), torch.full((1, 1, 8, 8), 1.0)
    assert images.psnr(a, b).tolist() == [100.0]
    assert images.ssim(-a, torch.zeros_like(a)).tolist() == [1.0]


def test_ssim_by_hand_in_one_window() -> None:
    """One window of 7 x 7: the formula with C1 = 0.01^2, C2 = 0.03^2 and unbiased variances."""
    source = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 1, 1, 7, 7, generator=source, dtype=torch.float64)
    mx, my = float(x.mean()), float(y.mean())
    vx, vy = float(x.var()), float(y.var())
    cov = float(((x - mx) * (y - my)).sum() / 48)
    c1, c2 = 0.01**2, 0.03**2
    expected = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert float(images.ssim(x, y)) == pytest.approx(expected, rel=1e-9)
    assert float(images.ssim(x, x)) == pytest.approx(1.0)
    two = images.ssim(torch.cat([x, y]), torch.cat([y, y]))
    assert two.tolist() == [pytest.approx(expected), pytest.approx(1.0)]


@pytest.mark.parametrize("metric", [images.psnr, images.ssim, images.lpips])
def test_other_shapes_are_refused(metric) -> None:
    with pytest.raises(ValueError, match=r"compares images \(n, C, H, W\) of one shape: they have \(1, 3, 8, 8\) and"):
        metric(torch.zeros(1, 3, 8, 8), torch.zeros(2, 3, 8, 8))
    with pytest.raises(ValueError, match="compares images"):
        metric(torch.zeros(3, 8, 8), torch.zeros(3, 8, 8))


def test_images_without_a_window_and_with_odd_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"sides of at least 7 pixels: images are \(6, 9\)"):
        images.ssim(torch.zeros(1, 1, 6, 9), torch.zeros(1, 1, 6, 9))
    with pytest.raises(ValueError, match="1 or 3 channels: they have 2"):
        images.lpips(torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8))


def test_without_the_pretrained_backbone_there_is_no_lpips_and_a_reason(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    a = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert images.lpips(a, a) is None
    assert "which is not there" in str(images.lpips_missing())
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / images.BACKBONE).write_bytes(b"weights of something else")
    assert images.lpips(a, a) is None
    assert "its SHA-256 is wrong" in str(images.lpips_missing())


@pytest.mark.skipif(images.lpips_missing() is not None, reason="the pretrained AlexNet of torchvision is not here")
def test_lpips_is_zero_for_the_same_image_and_grows_with_noise() -> None:
    source = torch.Generator().manual_seed(0)
    a = torch.rand(1, 3, 64, 64, generator=source)
    noise = torch.randn(1, 3, 64, 64, generator=source)
    distances = [float(images.lpips(a, (a + scale * noise).clamp(0, 1))) for scale in (0.0, 0.05, 0.3)]
    assert distances[0] == 0.0
    assert distances[0] < distances[1] < distances[2]


def test_the_assignment_is_optimal_where_the_nearest_is_not() -> None:
    originals = torch.tensor([0.0, 0.4]).view(2, 1, 1, 1)
    reconstructed = torch.tensor([0.3, 0.9]).view(2, 1, 1, 1)
    # 0.3 is the nearest to both; (0.3, 0.9) costs 0.09 + 0.25, the other way 0.01 + 0.81
    assert assign(reconstructed, originals).tolist() == [0, 1]
    originals = torch.tensor([0.1, 0.7, 0.4]).view(3, 1, 1, 1)
    assert assign(originals[[2, 0, 1]], originals).tolist() == [1, 2, 0]
    with pytest.raises(ValueError, match="finite images"):
        assign(torch.full((1, 1, 1, 1), math.nan), torch.zeros(1, 1, 1, 1))
    with pytest.raises(ValueError, match="of one shape"):
        assign(torch.zeros(1, 1, 1, 1), torch.zeros(2, 1, 1, 1))


def test_the_matching_success_rate_counts_what_is_missing_as_failed() -> None:
    assert matching_success_rate([(0, 1), (1, 0), (2, 2)], "abcd", "bacd") == 0.75
    assert matching_success_rate([(0, 0)], ["a", "b"], ["b", "a"]) == 0.0
    with pytest.raises(ValueError, match="at least one image: there are 0"):
        matching_success_rate([], [], [])
