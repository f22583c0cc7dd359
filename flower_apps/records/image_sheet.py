"""A white sheet with images and lines of text, all at whole pixels: what pictures of images are drawn on."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#222222"
# In pixels: about the side of an image, the gap between two, the margin of the sheet, the height of a line of text.
SIDE, GAP, MARGIN, LINE = 120, 16, 16, 17
DPI = 100
# Points of a heading, and of the lines that belong to an image.
HEADING, LABEL = 10.0, 9.0


def scale_of(tall: int, wide: int) -> int:
    """Return how many pixels of the sheet a pixel of an image is wide: whole, and at least one."""
    return max(1, round(SIDE / max(tall, wide)))


def wrapped(text: str, width: int, size: float = LABEL) -> list[str]:
    """Return the lines of a text for which there are `width` pixels."""
    return textwrap.wrap(text, max(1, width // (8 if size > LABEL else 7)))


@dataclass
class Sheet:
    """What stands where, in pixels from the left and the top."""

    images: list[tuple[int, int, Tensor, int]] = field(default_factory=list)
    texts: list[tuple[int, int, Sequence[str], float]] = field(default_factory=list)

    def image(self, left: int, top: int, image: Tensor, scale: int) -> None:
        """Put an image (C, H, W) in [0, 1] there, each of its pixels `scale` wide and tall."""
        self.images.append((left, top, image, scale))

    def text(self, left: int, top: int, lines: Sequence[str], size: float = LABEL) -> None:
        """Put lines of text there, which are no markup."""
        self.texts.append((left, top, lines, size))

    def figure(self, width: int, height: int) -> Figure:
        """Draw it."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
        for left, top, lines, size in self.texts:
            figure.text(
                left / width, 1 - top / height, "\n".join(lines), fontsize=size, color=INK, va="top", parse_math=False
            )  # fmt: skip
        for left, top, image, scale in self.images:
            # Laid on the page as they are: axes would resample them, and take long to make.
            pixels = _pixels(image).repeat(scale, axis=0).repeat(scale, axis=1)
            figure.figimage(pixels, left, height - top - len(pixels), origin="upper")
        return figure


def _pixels(image: Tensor) -> np.ndarray:
    """Return an image (C, H, W) as (H, W, 3) uint8: grey, the mean of the channels, for other than three of them."""
    pixels = image.detach().float().clamp(0, 1).cpu()
    colors = pixels if len(pixels) == 3 else pixels.mean(dim=0).expand(3, -1, -1)
    return (255 * colors).round().to(torch.uint8).permute(1, 2, 0).numpy()
