"""The same images, as they are and as each of several inversions makes them, one below the other.

Paper: J. Xu, C. Hong, J. Huang, L. Y. Chen, J. Decouchant, "AGIC: Approximate Gradient Inversion Attack on Federated
Learning", SRDS 2022, Figures 6, 7 and 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from flower_apps.config import NONE, Resolved, RunFailed
from flower_apps.figures import Drawing
from flower_apps.finished import FinishedRun
from flower_apps.inversion_files import read_images
from flower_apps.inversion_pictures import gallery

if TYPE_CHECKING:
    import pandas as pd


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
        originals: Tensor | None = None
        rows: list[tuple[str, Tensor, list[float]]] = []
        for run in first:
            true, found, psnr = read_images(run.folder.path, self.num_images)
            if originals is not None and not (true.shape == originals.shape and bool((true == originals).all())):
                raise RunFailed("the cells have different originals; let them differ in --curious alone")
            originals = true
            rows.append((run.name, found, psnr))
        assert originals is not None  # a sweep has a cell
        table: pd.DataFrame = pd.DataFrame(
            {"cell": name, "image": number, "psnr": value}
            for name, _, psnr in rows
            for number, value in enumerate(psnr)
        )
        return Drawing(gallery(originals, rows), {"": table})
