"""Any pictures: one .npz archive of arrays, or a folder with a folder for each class.

Source: files of one's own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thornbed.tasks import Defaults, Samples, Task
from thornbed.tasks.sources.archive import read_archive
from thornbed.tasks.sources.files import existing
from thornbed.tasks.sources.npz import KEYS
from thornbed.tasks.sources.pictures import read_pictures
from thornbed.tasks.sources.subset import rows_to_test

# Nothing is known of the pictures: few clients, so that each has some of every class.
DEFAULTS = Defaults(model="cnn", num_clients=10, clients_per_round=10, partition="iid")
CHUNK = 4096  # images whose mean is taken at a time


def image_archive(
    data_dir: Path | None,
    *,
    file: str = "images.npz",
    arrays: tuple[str, str, str, str] = KEYS,
    size: int | None = None,
    split: int = 0,
    test_share: float = 0.25,
) -> Task:
    """Return the task of the pictures in `data_dir`: images (C, H, W) of any size, and as many classes as there are.

    `file` is an archive or a folder. An archive has the four arrays that `arrays` names: images (N, H, W) or
    (N, H, W, C), uint8, uint16, or floating in [0, 1], and labels (N,) or (N, 1), whole numbers. A folder has the
    folders train and test, in each a folder for every class with its pictures, or else the folders of classes alone, of
    whose pictures a share is drawn for testing, every class in its own; `split` says which of the draws. Where the
    pictures differ in size, `size` is the side of the square that all are resized to. How colours are read is said in
    `tasks.sources.pictures`.

    Classes are the labels of the training images, ascending, or the names of the folders, sorted. `mean` and `std` are
    of all pixels of the training images in [0, 1], channel by channel.

    Raises MissingData where there is no such file, ValueError, with the file, for arrays and pictures that are no such
    images, a label to test on that no training image has, and fewer than two classes.
    """
    if not (0 < test_share < 1 and 0 <= split < 2**32):
        raise ValueError(
            f"image_archive needs 0 < test_share < 1 and 0 <= split < 2**32: test_share = {test_share}, split = {split}"
        )
    if size is not None and not 1 <= size <= 4096:
        raise ValueError(f"image_archive needs 1 <= size <= 4096: size = {size}")
    how = (
        f"put {file} into that folder, an archive of the arrays {', '.join(arrays)}, or a folder with a folder for "
        "each class"
    )
    path = existing("image_archive", data_dir, (file,), how)
    train, test, names = _of_folder(path, size, test_share, split) if path.is_dir() else _of_archive(path, arrays, size)
    mean, std = _statistics(train)
    return Task(
        name="image_archive",
        modality="image",
        num_classes=len(names),
        train=train,
        test=test,
        mean=mean,
        std=std,
        class_names=names,
    )


def _of_folder(path: Path, size: int | None, share: float, split: int) -> tuple[Samples, Samples, tuple[str, ...]]:
    if (path / "train").is_dir() and (path / "test").is_dir():
        parts = [read_pictures(path / part, size) for part in ("train", "test")]
        (train, names), (test, others) = parts
        if unknown := sorted(set(others) - set(names)):
            raise ValueError(f"{path}: test has a class {unknown[0]}, which train has not: {', '.join(names[:30])}")
        if train.x.shape[1:] != test.x.shape[1:]:
            shapes = [tuple(part.x.shape[1:]) for part in (train, test)]
            raise ValueError(f"{path}: images of train are {shapes[0]} and those of test {shapes[1]}; name a size")
        places = torch.tensor([names.index(name) for name in others])
        return train, Samples(test.x, places[test.y]), names
    samples, names = read_pictures(path, size)
    count = round(share * len(samples))
    if not 0 < count < len(samples):
        raise ValueError(f"{path}: {count} of {len(samples)} pictures to test on, expected some and not all")
    in_test = rows_to_test(samples.y, count, split=split)
    counts = torch.bincount(samples.y[~in_test], minlength=len(names))
    if len(untrained := counts.eq(0).nonzero()):
        raise ValueError(f"{path}: no picture of {names[int(untrained[0])]} is left to train on; take a smaller share")
    return samples.select(~in_test), samples.select(in_test), names


def _of_archive(
    path: Path, names: tuple[str, str, str, str], size: int | None
) -> tuple[Samples, Samples, tuple[str, ...]]:
    if size is not None:
        raise ValueError("image_archive resizes pictures of a folder; those of an archive have one size")
    if len(names) != 4 or not all(isinstance(name, str) for name in names):
        raise ValueError(f"arrays takes four names, such as {KEYS}: arrays = {names}")
    found = read_archive(path, names)
    x_train, x_test = (_images(path, name, found[name]) for name in (names[0], names[2]))
    y_train, y_test = (_labels(path, name, found[name]) for name in (names[1], names[3]))
    for (x, y), (of_x, of_y) in zip(((x_train, y_train), (x_test, y_test)), (names[:2], names[2:])):
        if len(x) != len(y) or not len(x):
            raise ValueError(f"{path}: {of_x} has {len(x)} images and {of_y} {len(y)} labels, expected one for each")
    if x_train.shape[1:] != x_test.shape[1:] or x_train.dtype != x_test.dtype:
        kinds = [f"{x.dtype} {tuple(x.shape[1:])}".removeprefix("torch.") for x in (x_train, x_test)]
        raise ValueError(f"{path}: images of {names[0]} are {kinds[0]} and those of {names[2]} {kinds[1]}")
    classes = np.unique(y_train)
    if len(classes) < 2:
        raise ValueError(f"{path}: {names[1]} is {classes[0]} for all {len(y_train)} images, expected two classes")
    if len(unknown := np.setdiff1d(y_test, classes)):
        raise ValueError(f"{path}: {names[3]} has a label {unknown[0]}, which {names[1]} has not")
    train, test = (
        Samples(x, torch.from_numpy(np.searchsorted(classes, y).astype(np.int64)))
        for x, y in ((x_train, y_train), (x_test, y_test))
    )
    return train, test, tuple(map(str, classes.tolist()))


def _images(path: Path, name: str, x: NDArray[np.generic]) -> Tensor:
    """Return images (N, C, H, W), uint8 or float32 in [0, 1], of those of an archive."""
    if x.ndim == 3:
        x = x[..., None]
    expected = f"{path}: {name} is {x.dtype} {x.shape}, expected images (N, H, W) or (N, H, W, C)"
    if x.ndim != 4 or 0 in x.shape[1:]:
        raise ValueError(expected)
    if x.shape[1] <= 4 < min(x.shape[2:]):
        raise ValueError(f"{expected}: are the channels first? x.transpose(0, 2, 3, 1) has them last")
    if x.dtype == np.uint16:
        x = (x.astype(np.float32) / 65535).astype(np.float32)
    elif np.issubdtype(x.dtype, np.floating):
        if not (np.isfinite(x).all() and x.min(initial=0) >= 0 and x.max(initial=0) <= 1):
            raise ValueError(f"{path}: {name} has numbers from {x.min()} to {x.max()}, expected pixels in [0, 1]")
        x = x.astype(np.float32)
    elif x.dtype != np.uint8:
        raise ValueError(f"{expected}, of uint8, uint16, or floating numbers in [0, 1]")
    return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()


def _labels(path: Path, name: str, y: NDArray[np.generic]) -> NDArray[np.integer]:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"{path}: {name} is {y.dtype} {y.shape}, expected whole numbers (N,) or (N, 1)")
    return y  # type: ignore[return-value]


def _statistics(train: Samples) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of the pixels by channel; 1 in place of the deviation of a constant one."""
    total = torch.zeros(2, train.x.shape[1], dtype=torch.float64)
    for start in range(0, len(train), CHUNK):
        pixels = train.select(torch.arange(start, min(start + CHUNK, len(train)))).decoded().x.double()
        total += torch.stack([pixels.sum(dim=(0, 2, 3)), pixels.square().sum(dim=(0, 2, 3))])
    mean, square = total / (train.x.numel() / train.x.shape[1])
    deviation = (square - mean.square()).clamp_(min=0).sqrt_()
    deviation[deviation < 1e-6] = 1.0
    return tuple(mean.tolist()), tuple(deviation.tolist())
