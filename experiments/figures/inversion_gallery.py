"""The same images, as they are and as each of several inversions makes them, one below the other.

Paper: J. Xu, C. Hong, J. Huang, L. Y. Chen, J. Decouchant, "AGIC: Approximate Gradient Inversion Attack on Federated
Learning", SRDS 2022, Figures 6, 7 and 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from thornbed.experiments.figures import Drawing
from thornbed.experiments.runs.finished import FinishedRun
from thornbed.flower_apps.inversion.records import TENSORS, read_inversions
from thornbed.flower_apps.records.image_sheet import GAP, LINE, MARGIN, SIDE, Sheet, scale_of, wrapped
from thornbed.flower_apps.settings import NONE, Resolved, RunFailed

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class _Row:
    """Images (m, C, H, W) of a run, what they really were, and how near they come."""

    images: Tensor
    originals: Tensor
    psnr: Sequence[float | None]


@dataclass(frozen=True, kw_only=True)
class InversionGallery:
    """Draw a row for each cell of the first seed, below the first `num_images` originals.

    The cells must have the same originals, as those have that differ in their inversion alone.

    The table has a row for each cell and image, with its PSNR in dB.
    """

    num_images: int = 8

    needs_cells: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.num_images < 1:
            raise ValueError(f"inversion_gallery needs num_images >= 1: num_images = {self.num_images}")

    def check(self, cells: Sequence[Resolved]) -> None:
        """Raise ValueError where a cell has no inversion."""
        if any(settings.curious == NONE for settings in cells):
            raise ValueError("inversion_gallery needs an inversion in every cell: curious = none")

    def draw(self, runs: Sequence[FinishedRun]) -> Drawing:
        """Return the rows of all runs of the first seed."""
        import pandas as pd

        first = [run for run in runs if run.settings.seed == runs[0].settings.seed]
        found = [self._images(run) for run in first]
        originals = found[0].originals
        if any(not torch.equal(each.originals, originals) for each in found):
            raise RunFailed("the cells have different originals; let them differ in --curious alone")
        table = pd.DataFrame(
            {"cell": run.name, "image": number, "psnr": value}
            for run, each in zip(first, found, strict=True)
            for number, value in enumerate(each.psnr)
        )
        return Drawing(_picture(originals, [run.name for run in first], found), {"": table})

    def _images(self, run: FinishedRun) -> _Row:
        """Read the first images of a run, inversion after inversion."""
        images, originals, psnr = [], [], []
        try:
            records = read_inversions(run.folder.path)
            with safe_open(run.folder.path / TENSORS, framework="pt") as stored:
                for number, each in enumerate(records.inversions):
                    if each.psnr is None:
                        raise ValueError(f"nobody knows what {each.name} really was")
                    images.append(stored.get_tensor(f"{number}/images"))
                    originals.append(stored.get_tensor(f"{number}/originals"))
                    psnr += each.psnr
                    if len(psnr) >= self.num_images:
                        break
        except (OSError, ValueError, SafetensorError) as error:
            raise RunFailed(f"the inversions in {run.folder.path} cannot be shown: {error}") from None
        count = self.num_images
        return _Row(torch.cat(images)[:count], torch.cat(originals)[:count], psnr[:count])


def _picture(originals: Tensor, names: Sequence[str], rows: Sequence[_Row]) -> Figure:
    scale = scale_of(*originals.shape[2:])
    tall, wide = (side * scale for side in originals.shape[2:])
    step = max(wide, SIDE) + GAP
    width = 2 * MARGIN + len(originals) * step - GAP
    sheet, top = Sheet(), MARGIN
    labelled = [("original", originals, None), *((name, row.images, row.psnr) for name, row in zip(names, rows))]
    for name, images, psnr in labelled:
        title = wrapped(name, width - 2 * MARGIN)
        sheet.text(MARGIN, top, title)
        top += LINE * len(title) + 4
        for column, image in enumerate(images):
            sheet.image(MARGIN + column * step, top, image, scale)
            if psnr is not None and (value := psnr[column]) is not None:
                sheet.text(MARGIN + column * step, top + tall + 4, [f"{value:.2f} dB"])
        top += tall + GAP // 2 + (LINE if psnr is not None else 0) + GAP // 2
    return sheet.figure(width, top - GAP // 2 + MARGIN // 2)
