"""Reading labelled images from one NumPy archive, NAME.npz, without ever unpickling anything.

Source: the archive of four arrays, x_train, y_train, x_test and y_test, is the one that Keras distributes MNIST in;
other arrays in the file are ignored.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from thornbed.tasks.samples import Samples
from thornbed.tasks.sources.archive import read_archive

KEYS = ("x_train", "y_train", "x_test", "y_test")


def expected_images(image_shape: tuple[int, int, int]) -> str:
    """Return in words the arrays of images that are read for samples of shape (C, H, W)."""
    channels, height, width = image_shape
    with_channels = f"uint8 (N, {height}, {width}, {channels})"
    return f"uint8 (N, {height}, {width}) or {with_channels[6:]}" if channels == 1 else with_channels


def read_npz(path: Path, *, image_shape: tuple[int, int, int], num_classes: int) -> tuple[Samples, Samples]:
    """Return the training and the test samples of an archive.

    Images are stored (N, H, W, C) uint8, with or without the last axis where C is 1, and returned (N, C, H, W) uint8;
    labels are stored as any integers (N,) or (N, 1) from 0 to num_classes - 1. Raises ValueError, with the file, what
    was found and what is expected, for anything else, and for a file that is damaged or no archive.
    """
    arrays = read_archive(path, KEYS)
    train, test = (
        _samples(path, split, arrays[f"x_{split}"], arrays[f"y_{split}"], image_shape, num_classes)
        for split in ("train", "test")
    )
    return train, test


def _samples(
    path: Path, split: str, x: np.ndarray, y: np.ndarray, image_shape: tuple[int, int, int], num_classes: int
) -> Samples:
    channels, height, width = image_shape
    accepted = [(height, width, channels)] + ([(height, width)] if channels == 1 else [])
    if x.dtype != np.uint8 or x.shape[1:] not in accepted:
        raise ValueError(f"{path}: x_{split} is {x.dtype} {x.shape}, expected {expected_images(image_shape)}")
    if y.ndim == 2 and y.shape[1] == 1:  # as Keras has the labels of CIFAR-10
        y = y[:, 0]
    if not np.issubdtype(y.dtype, np.integer) or y.ndim != 1:
        raise ValueError(f"{path}: y_{split} is {y.dtype} {y.shape}, expected integers (N,) or (N, 1)")
    if len(x) != len(y):
        raise ValueError(f"{path}: x_{split} has {len(x)} images and y_{split} {len(y)} labels, expected one for each")
    if len(x) == 0:
        raise ValueError(f"{path}: x_{split} has 0 images, expected at least 1")
    if y.min() < 0 or y.max() >= num_classes:
        raise ValueError(
            f"{path}: y_{split} has labels from {y.min()} to {y.max()}, expected labels from 0 to {num_classes - 1}"
        )
    images = torch.from_numpy(x.reshape(-1, height, width, channels)).permute(0, 3, 1, 2).contiguous()
    return Samples(images, torch.from_numpy(y.astype(np.int64)))
