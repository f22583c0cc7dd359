"""How near reconstructed images come to the originals: PSNR, SSIM and LPIPS, image by image.

All take images (n, C, H, W) in [0, 1], the data range is 1, and what lies outside is clipped first.

Papers: Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image Quality Assessment: From Error Visibility to
Structural Similarity", IEEE TIP 2004; R. Zhang, P. Isola, A. A. Efros, E. Shechtman, O. Wang, "The Unreasonable
Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018.
"""

from __future__ import annotations

import hashlib
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from thornbed.tasks.sources.torchvision_shim import declare_missing_operators

SSIM_WINDOW = 7
"""Pixels a side of the windows that SSIM compares, scikit-image's default; smaller images have none."""
LARGEST_PSNR = 100.0
"""In dB. An image that is exact, or nearer than 8 bits can tell, counts with so much in means, not with infinity."""
BACKBONE = "alexnet-owt-7be5be79.pth"
"""The file of torchvision's pretrained AlexNet; its name ends with the beginning of its SHA-256."""


def psnr(reconstructed: Tensor, originals: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of each image in dB, (n,) float64: 10 log10(1 / mean squared error).

    At most 100, which is what two equal images have. Raises ValueError for images of different or other shapes.
    """
    a, b = _pair("psnr", reconstructed, originals)
    return (-10 * (a - b).square().flatten(1).mean(dim=1).log10()).clamp(max=LARGEST_PSNR)


def ssim(reconstructed: Tensor, originals: Tensor) -> Tensor:
    """Return the structural similarity of each image, (n,) float64, at most 1; the mean over windows and channels.

    Raises ValueError for images of different or other shapes, or with a side under 7 pixels.
    """
    a, b = _pair("ssim", reconstructed, originals)
    if min(a.shape[2:]) < SSIM_WINDOW:
        raise ValueError(f"ssim needs sides of at least {SSIM_WINDOW} pixels: images are {tuple(a.shape[2:])}")
    pairs = zip(a.numpy(), b.numpy(), strict=True)
    values = [structural_similarity(x, y, data_range=1.0, channel_axis=0, win_size=SSIM_WINDOW) for x, y in pairs]
    return torch.from_numpy(np.array(values, dtype=np.float64))


def lpips(reconstructed: Tensor, originals: Tensor) -> Tensor | None:
    """Return the perceptual distance of each image, (n,) float64, at least 0; None where `lpips_missing` says why.

    AlexNet's features with the linear weights of the package lpips, version 0.1. Images of one channel are shown to it
    in grey. Raises ValueError for images of different or other shapes, or with other than 1 or 3 channels.
    """
    a, b = _pair("lpips", reconstructed, originals)
    if a.shape[1] not in (1, 3):
        raise ValueError(f"lpips needs images with 1 or 3 channels: they have {a.shape[1]}")
    if lpips_missing() is not None:
        return None
    shown = [(2 * images - 1).to(torch.float32).expand(-1, 3, -1, -1) for images in (a, b)]
    with torch.inference_mode():
        return _perceptual(str(_backbone()))(*shown).flatten().to(torch.float64)


def lpips_missing() -> str | None:
    """Return why LPIPS cannot be computed, as a sentence; None where it can.

    Its backbone is a file that torchvision downloads. It is never replaced by untrained weights, which would give
    numbers that mean nothing, and never downloaded from here.
    """
    path = _backbone()
    if not path.is_file():
        return f"LPIPS needs the pretrained AlexNet of torchvision in {path}, which is not there"
    if not _sha256(str(path), path.stat().st_mtime_ns).startswith(path.stem.rpartition("-")[2]):
        return f"LPIPS needs the pretrained AlexNet of torchvision, and {path} is another file: its SHA-256 is wrong"
    return None


def _backbone() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / BACKBONE


@lru_cache(maxsize=2)
def _sha256(path: str, changed: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=1)
def _perceptual(backbone: str) -> nn.Module:
    declare_missing_operators()
    import lpips as package

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package calls torchvision by names that it has since renamed
        network: nn.Module = package.LPIPS(net="alex", version="0.1", verbose=False)
    return network.eval().requires_grad_(False)


def _pair(metric: str, reconstructed: Tensor, originals: Tensor) -> tuple[Tensor, Tensor]:
    """Return both clipped to [0, 1], float64, on the CPU."""
    if reconstructed.shape != originals.shape or reconstructed.ndim != 4:
        raise ValueError(
            f"{metric} compares images (n, C, H, W) of one shape: they have {tuple(reconstructed.shape)} and "
            f"{tuple(originals.shape)}"
        )
    return (
        reconstructed.detach().to("cpu", torch.float64).clamp(0, 1),
        originals.detach().to("cpu", torch.float64).clamp(0, 1),
    )
