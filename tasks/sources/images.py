"""Finding an image data set in the user's folder: NAME.npz first, then torchvision's folder, then its download."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from thornbed.tasks.samples import Samples, Task
from thornbed.tasks.sources import MissingData
from thornbed.tasks.sources.npz import expected_images, read_npz
from thornbed.tasks.sources.subset import take
from thornbed.tasks.sources.torchvision_files import DOWNLOAD_ERRORS


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """One image data set and the ways to read it.

    `image_shape` is (C, H, W); `mean` and `std` are of all pixels of the training images in [0, 1], channel by channel.
    `torchvision_class` is the name in torchvision.datasets, `torchvision_splits` what this class downloads one at a
    time, if it does; `published` has the address and the md5 of every file that it fetches. `read_download` reads the
    folder that the class fills, and fills it where it is not whole, or raises one of DOWNLOAD_ERRORS.
    """

    name: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    torchvision_class: str
    published: tuple[tuple[str, str], ...]
    read_download: Callable[[Path], tuple[Samples, Samples]]
    torchvision_splits: tuple[str, ...] = ()

    def task(self, data_dir: Path | None, num_train: int | None, num_test: int | None) -> Task:
        """Return the task of this data set, of `num_train` and `num_test` samples where they are given.

        Raises what `read` raises, and ValueError where there are fewer samples than asked for.
        """
        train, test = self.read(data_dir)
        return Task(
            name=self.name,
            modality="image",
            num_classes=len(self.class_names),
            train=take(train, num_train, task=self.name, option="num_train"),
            test=take(test, num_test, task=self.name, option="num_test"),
            mean=self.mean,
            std=self.std,
            class_names=self.class_names,
        )

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
            return read_npz(archive, image_shape=self.image_shape, num_classes=len(self.class_names))
        try:
            return self.read_download(data_dir)
        except DOWNLOAD_ERRORS as error:
            raise self._missing(f"{data_dir} has none and the download failed ({error})", str(data_dir)) from error

    def _missing(self, why: str, folder: str) -> MissingData:
        arrays = (
            f"x_train {expected_images(self.image_shape)}, y_train integers (N,) from 0 to "
            f"{len(self.class_names) - 1}, x_test and y_test likewise"
        )
        fetched = " and ".join(f"{address} (md5 {md5})" for address, md5 in self.published)
        splits = [f"{split!r}, " for split in self.torchvision_splits] or [""]
        calls = (
            f"torchvision_datasets().{self.torchvision_class}({folder!r}, {split}download=True)" for split in splits
        )
        command = (
            f'python -c "from thornbed.tasks.sources.torchvision_files import torchvision_datasets; {"; ".join(calls)}"'
        )
        return MissingData(
            f"{self.name} needs its data, but {why}: put {self.name}.npz ({arrays}) into {folder}, "
            f"or let torchvision fetch {fetched} into that folder on a machine with network: {command}"
        )
