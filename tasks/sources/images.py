"""Finding an image data set in the user's folder: NAME.npz first, then torchvision's folder, then its download."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tasks import Samples
from tasks.sources import MissingData
from tasks.sources.npz import expected_images, read_npz
from tasks.sources.torchvision_files import DOWNLOAD_ERRORS


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """One image data set and the ways to read it.

    `image_shape` is (C, H, W). `torchvision_class` is the name in torchvision.datasets; `read_download` reads the
    folder that this class fills, and fills it where it is not whole, or raises one of DOWNLOAD_ERRORS.
    """

    name: str
    image_shape: tuple[int, int, int]
    num_classes: int
    torchvision_class: str
    read_download: Callable[[Path], tuple[Samples, Samples]]

    def read(self, data_dir: Path | None) -> tuple[Samples, Samples]:
        """Return training and test samples, images (N, C, H, W) uint8.

        Raises MissingData where the folder is not there or has no data and the download fails, ValueError where
        NAME.npz is malformed.
        """
        if data_dir is None:
            raise self._missing("no folder was named with --data-dir", "FOLDER")
        if not data_dir.is_dir():
            raise self._missing(f"there is no folder {data_dir}", str(data_dir))
        archive = data_dir / f"{self.name}.npz"
        if archive.exists():
            return read_npz(archive, image_shape=self.image_shape, num_classes=self.num_classes)
        try:
            return self.read_download(data_dir)
        except DOWNLOAD_ERRORS as error:
            raise self._missing(f"{data_dir} has none and the download failed ({error})", str(data_dir)) from error

    def _missing(self, why: str, folder: str) -> MissingData:
        arrays = (
            f"x_train {expected_images(self.image_shape)}, y_train integers (N,) from 0 to {self.num_classes - 1}, "
            "x_test and y_test likewise"
        )
        command = (
            f'python -c "from torchvision.datasets import {self.torchvision_class}; '
            f'{self.torchvision_class}({folder!r}, download=True)"'
        )
        return MissingData(
            f"{self.name} needs its data, but {why}: put {self.name}.npz ({arrays}) into {folder}, "
            f"or let torchvision fill that folder on a machine with network: {command}"
        )
