"""The file of edge-case images: Southwest airplanes, which are published as pickles and read here from an .npz file.

Source: H. Wang et al., "Attack of the Tails: Yes, You Really Can Backdoor Federated Learning", NeurIPS 2020, two
pickles at https://github.com/ksreenivasan/OOD_Federated_Learning: saved_datasets/southwest_images_new_train.pkl (784
images) and southwest_images_new_test.pkl (196). Pickles can run code when they are opened, so the .npz file is made
from them once, with numpy: `savez("southwest.npz", x_train=load(TRAIN, allow_pickle=True), x_test=load(TEST,
allow_pickle=True))`. The arrays that this project is tested with have, over their bytes, the SHA-256 sums
x_train 2edd7fcabb6cc9ffd56a9a984fcafc704674d5dc08efaa62ec00b2284d39405c,
x_test 342bf7aeb7563a92388f0f93e2ce15f5b8c8e0f5ca3d00aa95151927d4febc9d. They are rotated copies of about 200
photographs, so a success rate rests on far fewer independent images than it counts.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from thornbed.tasks.sources.archive import read_archive

EXPECTED = (
    "it is to hold x_train and x_test, uint8 (N, H, W, C), the Southwest airplanes of Wang et al. (NeurIPS 2020), "
    "published with 784 and 196 images of 32 x 32 x 3 at https://github.com/ksreenivasan/OOD_Federated_Learning; "
    "without a network, copy southwest.npz from a machine that has it and name it with edge_case(file=...)"
)


@lru_cache(maxsize=4)
def edge_images(file: Path) -> tuple[Tensor, Tensor]:
    """Return the edge-case images for training and for the test, (N, C, H, W) float32 in [0, 1]; read once a process.

    Raises FileNotFoundError where there is no such file, ValueError where it does not hold what it should.
    """
    if not file.is_file():
        raise FileNotFoundError(f"edge_case finds no file {file}: {EXPECTED}")
    try:
        found = read_archive(file, ("x_train", "x_test"))
    except ValueError as error:
        raise ValueError(f"edge_case cannot read {file} ({error}): {EXPECTED}") from error
    train, test = found["x_train"], found["x_test"]
    for key, images in (("x_train", train), ("x_test", test)):
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) == 0:
            raise ValueError(f"edge_case finds {images.dtype} {images.shape} under {key} of {file}: {EXPECTED}")
    if train.shape[1:] != test.shape[1:]:
        sizes = f"{train.shape[1:]} under x_train, {test.shape[1:]} under x_test"
        raise ValueError(f"edge_case finds images of two sizes in {file} ({sizes}): {EXPECTED}")
    first, second = (torch.tensor(images).permute(0, 3, 1, 2).contiguous().float() / 255 for images in (train, test))
    return first, second
