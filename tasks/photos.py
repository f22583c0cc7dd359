"""Ten photographs that come with scikit-image, cut into pieces of 32 x 32 pixels; no download, for looking at pictures.

Source: scikit-image's bundled sample data (`skimage.data`), https://scikit-image.org; its README names the origin and
licence of each photograph. Which photograph a piece is cut from is its class: there is little to learn here, and much
for an inversion to find again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from thornbed.tasks import Defaults, Samples, Task
from thornbed.tasks.sources.subset import take

DEFAULTS = Defaults(model="cnn", batch_size=8, num_clients=10, clients_per_round=10, rounds=10, partition="iid")

PHOTOGRAPHS = (
    "astronaut",
    "camera",
    "cat",
    "coffee",
    "coins",
    "hubble_deep_field",
    "immunohistochemistry",
    "moon",
    "retina",
    "rocket",
)
SIDE, SHORTER = 32, 128
TEST_EVERY = 4
# Of all pixels of the training images, computed once.
MEAN, STD = (0.4601, 0.3568, 0.3222), (0.2799, 0.2227, 0.2206)


def photos(data_dir: Path | None, *, num_train: int | None = None, num_test: int | None = None) -> Task:
    """Return the task: 150 training and 50 test images of shape (3, 32, 32), ten classes.

    A photograph is shrunk by the largest whole factor that leaves its shorter side at least 128 pixels, each pixel the
    mean of a square, and cut into pieces that lie beside each other; grey ones get three equal channels. Every fourth
    piece is for testing. `data_dir` is not used. `num_train` and `num_test` take that many samples, every class in its
    share, the first ones of each; ValueError where there are not that many.
    """
    cut = [_pieces(name) for name in PHOTOGRAPHS]
    x = torch.cat(cut)
    y = torch.cat([torch.full((len(pieces),), label) for label, pieces in enumerate(cut)])
    place = torch.cat([torch.arange(len(pieces)) for pieces in cut])
    in_test = place % TEST_EVERY == TEST_EVERY - 1
    samples = Samples(x, y)
    return Task(
        name="photos",
        modality="image",
        num_classes=len(PHOTOGRAPHS),
        train=take(samples.select(~in_test), num_train, task="photos", option="num_train"),
        test=take(samples.select(in_test), num_test, task="photos", option="num_test"),
        mean=MEAN,
        std=STD,
        class_names=PHOTOGRAPHS,
    )


def _pieces(name: str) -> Tensor:
    """Return the pieces of a photograph, (n, 3, 32, 32) uint8, row by row."""
    import skimage.data

    photograph: Callable[[], np.ndarray] = getattr(skimage.data, name)
    pixels = photograph()
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    factor = min(pixels.shape[:2]) // SHORTER
    rows, columns = (length // (factor * SIDE) for length in pixels.shape[:2])
    kept = pixels[: rows * SIDE * factor, : columns * SIDE * factor, :3].astype(np.float64)
    small = kept.reshape(rows * SIDE, factor, columns * SIDE, factor, 3).mean(axis=(1, 3))
    tiles = np.rint(small).astype(np.uint8).reshape(rows, SIDE, columns, SIDE, 3)
    return torch.from_numpy(tiles.transpose(0, 2, 4, 1, 3).reshape(-1, 3, SIDE, SIDE).copy())
