"""The published data themselves, from a folder with mnist.npz, fashion_mnist.npz and cifar10.npz."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tasks.cifar10 import cifar10
from tasks.fashion_mnist import fashion_mnist
from tasks.mnist import mnist

FOLDER = os.environ.get("THORNBED_TEST_DATA", "")

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not FOLDER, reason="THORNBED_TEST_DATA names no folder with real data"),
]


@pytest.mark.parametrize(
    ("task", "num_train", "shape"),
    [(mnist, 60_000, (1, 28, 28)), (fashion_mnist, 60_000, (1, 28, 28)), (cifar10, 50_000, (3, 32, 32))],
)
def test_numbers_classes_and_pixels_are_the_published_ones(task, num_train, shape):
    if not (Path(FOLDER) / f"{task.__name__}.npz").exists():
        pytest.skip(f"{FOLDER} has no {task.__name__}.npz")
    loaded = task(Path(FOLDER))
    assert (len(loaded.train), len(loaded.test)) == (num_train, 10_000)
    assert loaded.sample_shape == shape
    if task is not mnist:  # the other two are balanced
        assert torch.bincount(loaded.test.y).tolist() == [1000] * 10
    pixels = loaded.train.x[::5].double() / 255
    # copies of CIFAR-10 that went through JPEG lose a little contrast
    torch.testing.assert_close(pixels.mean(dim=(0, 2, 3)), torch.tensor(loaded.mean).double(), atol=0.004, rtol=0)
    torch.testing.assert_close(
        pixels.std(dim=(0, 2, 3), correction=0), torch.tensor(loaded.std).double(), atol=0.004, rtol=0
    )
    few = task(Path(FOLDER), num_train=1000, num_test=100)
    assert len(few.train) == 1000
    assert len(few.test) == 100
