"""Reading NAME.npz: what is taken, and a sentence for everything that is wrong with a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from thornbed.tasks.cifar10 import cifar10
from thornbed.tasks.mnist import mnist
from thornbed.tasks.sources.npz import read_npz


def arrays(*image_shape: int, train: int = 6, test: int = 3) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    made: dict[str, Any] = {}
    for split, size in (("train", train), ("test", test)):
        made[f"x_{split}"] = rng.integers(0, 256, size=(size, *image_shape), dtype=np.uint8)
        made[f"y_{split}"] = np.arange(size, dtype=np.int64)
    return made


def refusal(folder: Path, made: dict[str, Any]) -> str:
    """Return the sentence with which mnist refuses such a file."""
    np.savez(folder / "mnist.npz", **made)
    with pytest.raises(ValueError) as refused:
        mnist(folder)
    sentence = str(refused.value)
    assert sentence.startswith(str(folder / "mnist.npz"))
    assert "\n" not in sentence
    return sentence


def test_grey_images_come_out_channels_first(tmp_path):
    made = arrays(28, 28)
    np.savez(tmp_path / "mnist.npz", **made)
    task = mnist(tmp_path)
    assert task.train.x.shape == (6, 1, 28, 28)
    assert task.test.x.shape == (3, 1, 28, 28)
    assert np.array_equal(task.train.x[:, 0].numpy(), made["x_train"])
    assert task.train.y.tolist() == [0, 1, 2, 3, 4, 5]


def test_colour_images_come_out_channels_first(tmp_path):
    made = arrays(32, 32, 3)
    np.savez_compressed(tmp_path / "cifar10.npz", **made, another_array=np.zeros(3))
    task = cifar10(tmp_path)
    assert task.train.x.shape == (6, 3, 32, 32)
    assert task.test.x[2, 1, 5, 7] == made["x_test"][2, 5, 7, 1]


def test_a_last_axis_of_one_channel_and_labels_of_any_integer_type_are_taken(tmp_path):
    made = arrays(28, 28, 1) | {"y_train": np.arange(6, dtype=np.uint8)}
    np.savez(tmp_path / "mnist.npz", **made)
    task = mnist(tmp_path)
    assert task.train.x.shape == (6, 1, 28, 28)
    assert task.train.y.dtype == torch.int64


@pytest.mark.parametrize("key", ["x_train", "y_train", "x_test", "y_test"])
def test_a_missing_array_is_named(tmp_path, key):
    made = arrays(28, 28)
    del made[key]
    sentence = refusal(tmp_path, made)
    assert f"has no array {key}" in sentence
    assert "expected ['x_train', 'y_train', 'x_test', 'y_test']" in sentence


@pytest.mark.parametrize(
    ("change", "found", "expected"),
    [
        ({"x_train": np.zeros((6, 28, 28), np.float32)}, "x_train is float32 (6, 28, 28)", "uint8 (N, 28, 28)"),
        ({"x_train": np.zeros((6, 784), np.uint8)}, "x_train is uint8 (6, 784)", "uint8 (N, 28, 28)"),
        ({"x_test": np.zeros((3, 32, 32, 3), np.uint8)}, "x_test is uint8 (3, 32, 32, 3)", "or (N, 28, 28, 1)"),
        ({"x_test": np.uint8(3)}, "x_test is uint8 ()", "uint8 (N, 28, 28)"),
        ({"y_train": np.arange(6.0)}, "y_train is float64 (6,)", "integers (N,)"),
        ({"y_train": np.zeros((6, 2), np.int64)}, "y_train is int64 (6, 2)", "integers (N,)"),
        ({"y_train": np.zeros(6, np.bool_)}, "y_train is bool (6,)", "integers (N,)"),
        ({"y_train": np.arange(5)}, "6 images and y_train 5 labels", "one for each"),
        ({"y_train": np.arange(5, 11)}, "labels from 5 to 10", "labels from 0 to 9"),
        ({"y_test": np.array([0, -1, 2])}, "labels from -1 to 2", "labels from 0 to 9"),
        ({"x_test": np.zeros((0, 28, 28), np.uint8), "y_test": np.zeros(0, np.int64)}, "0 images", "at least 1"),
    ],
)
def test_what_is_malformed_is_refused_with_what_was_found_and_what_is_expected(tmp_path, change, found, expected):
    sentence = refusal(tmp_path, arrays(28, 28) | change)
    assert found in sentence
    assert "expected" in sentence
    assert expected in sentence


class Tripwire:
    """Remembers that it was unpickled."""

    sprung = False

    def __reduce__(self):
        return (_spring, ())


def _spring() -> int:
    Tripwire.sprung = True
    return 0


def test_pickled_objects_are_refused_and_not_unpickled(tmp_path):
    objects = np.empty(6, dtype=object)
    objects[:] = [Tripwire() for _ in range(6)]
    sentence = refusal(tmp_path, arrays(28, 28) | {"y_train": objects})
    assert "plain arrays" in sentence
    assert not Tripwire.sprung


@pytest.mark.parametrize("damage", ["empty", "no archive", "cut in half", "a byte changed", "a single array"])
def test_a_damaged_file_is_refused(tmp_path, damage):
    path = tmp_path / "mnist.npz"
    np.savez(path, **arrays(28, 28, train=10))
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(
        {
            "empty": b"",
            "no archive": b"<html>404 Not Found</html>",
            "cut in half": whole[:middle],
            "a byte changed": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
            "a single array": whole,
        }[damage]
    )
    if damage == "a single array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match=r"cannot be read as an \.npz archive of plain arrays") as refused:
        read_npz(path, image_shape=(1, 28, 28), num_classes=10)
    assert str(path) in str(refused.value)
