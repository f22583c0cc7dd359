"""Backdoor by images from the tail of the distribution: Southwest airplanes, which hardly any honest client has.

Paper: H. Wang, K. Sreenivasan, S. Rajput, H. Vishwakarma, S. Agarwal, J. Sohn, K. Lee, D. Papailiopoulos, "Attack of
the Tails: Yes, You Really Can Backdoor Federated Learning", NeurIPS 2020, the CIFAR-10 task: airplanes in the colours
of Southwest Airlines labelled as trucks. No trigger is stamped: the images themselves are the backdoor. The share of
edge-case samples, 8 in each batch of 64, is that of the invariant aggregator's experiments.

The images are published as two pickles, saved_datasets/southwest_images_new_train.pkl (784 images) and
southwest_images_new_test.pkl (196), at https://github.com/ksreenivasan/OOD_Federated_Learning. Pickles can run code
when they are opened, so this attack reads an .npz file, which is made from them once with numpy:
`savez("southwest.npz", x_train=load(TRAIN, allow_pickle=True), x_test=load(TEST, allow_pickle=True))`. The arrays that
this project is tested with have, over their bytes, the SHA-256 sums
x_train 2edd7fcabb6cc9ffd56a9a984fcafc704674d5dc08efaa62ec00b2284d39405c,
x_test 342bf7aeb7563a92388f0f93e2ce15f5b8c8e0f5ca3d00aa95151927d4febc9d. They are rotated copies of about 200
photographs, so a success rate rests on far fewer independent images than it counts.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from attacks import Knowledge
from attacks.data import check_label
from tasks import Samples

NEEDS = frozenset({Knowledge.OWN_DATA, Knowledge.TARGET_DATA})


EXPECTED = (
    "it is to hold x_train and x_test, uint8 (N, H, W, C), the Southwest airplanes of Wang et al. (NeurIPS 2020), "
    "published with 784 and 196 images of 32 x 32 x 3 at https://github.com/ksreenivasan/OOD_Federated_Learning; "
    "without a network, copy southwest.npz from a machine that has it and name it with edge_case(file=...)"
)


@dataclass(frozen=True, kw_only=True)
class EdgeCase:
    """Add edge-case images of `file`, labelled `target`, until they are `fraction` of the client's samples.

    A relative file is one of the working directory; the caller resolves paths of a data folder. Any uint8 images of
    the task's size will do in place of the airplanes; `target` 9 is CIFAR-10's truck.
    """

    file: Path = Path("southwest.npz")
    target: int = 9
    fraction: float = 0.125

    modalities: ClassVar[frozenset[str]] = frozenset({"image"})
    backdoor: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.target < 0:
            raise ValueError(f"edge_case needs target >= 0: target = {self.target}")
        if not 0 <= self.fraction < 1:
            raise ValueError(f"edge_case needs 0 <= fraction < 1: fraction = {self.fraction}")

    def check(self, num_classes: int, sample_shape: tuple[int, ...]) -> None:
        """Raise ValueError where the target is no class, or the images are not of the task's channels and size.

        Reads the file: raises FileNotFoundError where it is missing, ValueError where it is not what it should be.
        """
        check_label("edge_case", "target", self.target, num_classes)
        self._images(sample_shape)

    def poison(self, samples: Samples, generator: torch.Generator) -> Samples:
        """Return the samples followed by round(fraction / (1 - fraction) * N) edge-case images labelled as the target.

        The images are drawn without replacement; with replacement only where more are needed than there are. The
        share is that of the client's samples as a whole: shuffled batches hold it on average, not each.
        """
        images, _ = self._images(samples.x.shape[1:])
        needed = round(self.fraction / (1 - self.fraction) * len(samples))
        if needed <= len(images):
            rows = torch.randperm(len(images), generator=generator)[:needed]
        else:
            rows = torch.randint(len(images), (needed,), generator=generator)
        return samples.decoded().join(Samples(images[rows], torch.full((needed,), self.target)))

    def measure(self, test: Samples) -> Samples | None:
        """Return the edge-case test images labelled as the target; the task's own test samples play no part."""
        _, images = self._images(test.x.shape[1:])
        return Samples(images.clone(), torch.full((len(images),), self.target))

    def _images(self, sample_shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Return the images of the file, having seen that they fit the task's."""
        train, test = edge_images(Path(self.file).resolve())
        ours, theirs = tuple(train.shape[1:]), tuple(sample_shape)
        if ours != theirs:
            raise ValueError(f"edge_case needs images of the task's (C, H, W): edge cases = {ours}, task = {theirs}")
        return train, test


@lru_cache(maxsize=4)
def edge_images(file: Path) -> tuple[Tensor, Tensor]:
    """Return the edge-case images for training and for the test, (N, C, H, W) float32 in [0, 1]; read once a process.

    Raises FileNotFoundError where there is no such file, ValueError where it does not hold what it should.
    """
    if not file.is_file():
        raise FileNotFoundError(f"edge_case finds no file {file}: {EXPECTED}")
    try:
        with np.load(file, allow_pickle=False) as stored:
            train, test = (np.asarray(stored[key]) for key in ("x_train", "x_test"))
    # An .npy file gives an array, which is no context manager: TypeError.
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"edge_case cannot read {file} ({error}): {EXPECTED}") from error
    for key, images in (("x_train", train), ("x_test", test)):
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) == 0:
            raise ValueError(f"edge_case finds {images.dtype} {images.shape} under {key} of {file}: {EXPECTED}")
    if train.shape[1:] != test.shape[1:]:
        sizes = f"{train.shape[1:]} under x_train, {test.shape[1:]} under x_test"
        raise ValueError(f"edge_case finds images of two sizes in {file} ({sizes}): {EXPECTED}")
    first, second = (torch.tensor(images).permute(0, 3, 1, 2).contiguous().float() / 255 for images in (train, test))
    return first, second
