"""Pictures of one's own: an archive of arrays or a folder of classes, of any size, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from thornbed.tasks import Task
from thornbed.tasks.image_archive import image_archive
from thornbed.tasks.sources import MissingData

RANDOM = np.random.default_rng(0)
X = RANDOM.integers(0, 256, (24, 6, 5, 3), dtype=np.uint8)
Y = np.repeat([7, 3, 12], 8)


def saved(folder: Path, **changed: object) -> Path:
    arrays = {"x_train": X, "y_train": Y, "x_test": X[:9], "y_test": Y[:9], **changed}
    np.savez(folder / "images.npz", **{name: array for name, array in arrays.items() if array is not None})  # type: ignore[arg-type]
    return folder


def test_an_archive_by_hand(tmp_path):
    task = image_archive(saved(tmp_path))
    assert (task.sample_shape, task.num_classes, task.class_names) == ((3, 6, 5), 3, ("3", "7", "12"))
    assert task.train.y.tolist() == [1] * 8 + [0] * 8 + [2] * 8
    assert task.test.y.tolist() == [1] * 8 + [0]
    assert torch.equal(task.train.x, torch.from_numpy(X).permute(0, 3, 1, 2))
    pixels = X.astype(np.float64) / 255
    assert task.mean == pytest.approx(pixels.mean(axis=(0, 1, 2)))
    assert task.std == pytest.approx(pixels.std(axis=(0, 1, 2)))


@pytest.mark.parametrize(
    ("x", "shape", "value"),
    [
        (X[..., 0], (1, 6, 5), X[0, 0, 0, 0] / 255),
        (X[..., :1], (1, 6, 5), X[0, 0, 0, 0] / 255),
        ((X / 255).astype(np.float64), (3, 6, 5), X[0, 0, 0, 0] / 255),
        ((X / 255).astype(np.float16), (3, 6, 5), X[0, 0, 0, 0] / 255),
        (X.astype(np.uint16) * 257, (3, 6, 5), X[0, 0, 0, 0] / 255),
        (np.repeat(X, 2, axis=3)[..., :5], (5, 6, 5), X[0, 0, 0, 0] / 255),  # bands of a satellite
    ],
)
def test_images_come_in_many_kinds(x, shape, value, tmp_path):
    task = image_archive(saved(tmp_path, x_train=x, x_test=x[:9], y_train=Y[:, None], y_test=Y[:9].astype(np.uint8)))
    assert task.sample_shape == shape
    decoded = task.samples("train").x
    assert decoded.dtype == torch.float32
    assert decoded[0, 0, 0, 0].item() == pytest.approx(value, abs=1e-3)


def test_arrays_of_another_name_are_read_by_it_and_a_flat_channel_has_deviation_one(tmp_path):
    names = ("train_images", "train_labels", "test_images", "test_labels")
    arrays = (np.full_like(X, 51), Y[:, None], X[:9], Y[:9, None])
    np.savez(tmp_path / "medical.npz", **dict(zip(names, arrays)))
    task = image_archive(tmp_path, file="medical.npz", arrays=names)
    assert task.mean == pytest.approx((0.2, 0.2, 0.2))
    assert task.std == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"x_train": None, "X_train": X},
            r"it has no array x_train: found \['X_train', 'x_test', 'y_test', 'y_tr",
        ),
        ({"y_train": None, "arr_0": Y}, r"it has no array y_train: found \['arr_0', "),
        ({"x_train": X.transpose(0, 3, 1, 2)}, r"x_train is uint8 \(24, 3, 6, 5\).*x.transpose\(0, 2, 3, 1\) has them"),
        ({"x_train": X.reshape(24, -1)}, r"x_train is uint8 \(24, 90\), expected images"),
        ({"x_train": X.astype(np.int64)}, r"x_train is int64 .*of uint8, uint16, or floating numbers in \[0, 1\]"),
        ({"x_train": X.astype(np.float32)}, r"x_train has numbers from 0.0 to 255.0, expected pixels in \[0, 1\]"),
        ({"x_train": np.full(X.shape, np.nan)}, r"expected pixels in \[0, 1\]"),
        ({"x_train": X[:5]}, "x_train has 5 images and y_train 24 labels"),
        ({"x_test": X[:0], "y_test": Y[:0]}, "x_test has 0 images and y_test 0 labels"),
        ({"x_test": X[:9, :4]}, r"images of x_train are uint8 \(3, 6, 5\) and those of x_test uint8 \(3, 4, 5\)"),
        ({"x_test": (X[:9] / 255)}, "images of x_train are uint8 .* and those of x_test float32"),
        ({"y_train": Y / 1.0}, r"y_train is float64 \(24,\), expected whole numbers"),
        ({"y_train": np.eye(3)[Y % 3]}, r"y_train is float64 \(24, 3\), expected whole numbers"),
        ({"y_train": Y * 0, "y_test": Y[:9] * 0}, "y_train is 0 for all 24 images, expected two classes"),
        ({"y_test": Y[:9] + 1}, "y_test has a label 4, which y_train has not|y_test has a label 8"),
        ({"x_train": np.array([None] * 24)}, "cannot be read as an .npz archive of plain arrays"),
    ],
)
def test_an_archive_that_is_none_of_images_is_refused(changed, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence) as refused:
        image_archive(saved(tmp_path, **changed))
    assert str(tmp_path / "images.npz") in str(refused.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"test_share": 1.0}, "image_archive needs 0 < test_share < 1"),
        ({"split": -1}, "0 <= split"),
        ({"size": 0}, "needs 1 <= size <= 4096: size = 0"),
        ({"size": 8}, "those of an archive have one size"),
        ({"arrays": ("x", "y")}, "arrays takes four names"),
    ],
)
def test_options_out_of_range_are_refused(options, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        image_archive(saved(tmp_path), **options)


def test_what_is_not_there_is_missing(tmp_path):
    said = (
        r"image_archive needs its data, but .* has no mine.npz: put mine.npz into that folder, an archive of the arrays"
    )
    with pytest.raises(MissingData, match=said):
        image_archive(tmp_path, file="mine.npz")
    with pytest.raises(MissingData, match="--data-dir"):
        image_archive(None)
    (tmp_path / "images.npz").write_bytes(b"PK no archive")
    with pytest.raises(ValueError, match=r"images\.npz cannot be read"):
        image_archive(tmp_path)


def drawn(folder: Path, part: str = "", *, modes: tuple[str, ...] = ("RGB",), side: int = 6) -> Path:
    """Make a folder of pictures, four of each of the classes cat and dog, in turn of these modes."""
    for label, name in enumerate(("cat", "dog")):
        place = folder / "pets" / part / name
        place.mkdir(parents=True)
        for number in range(4):
            grey = np.full((side, side), 40 * label + number, np.uint8)
            Image.fromarray(grey).convert(modes[number % len(modes)]).save(place / f"{number}.png")
    return folder


def both(task: Task) -> torch.Tensor:
    return torch.cat([task.train.x, task.test.x])


def test_a_folder_of_parts_of_classes(tmp_path):
    drawn(drawn(tmp_path, "train"), "test")
    (tmp_path / "pets" / "train" / "cat" / "notes.txt").write_text("no picture")
    task = image_archive(tmp_path, file="pets")
    assert (task.class_names, task.sample_shape) == (("cat", "dog"), (3, 6, 6))
    assert task.train.x[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 40, 41, 42, 43]
    assert task.train.y.tolist() == task.test.y.tolist() == [0] * 4 + [1] * 4


def test_a_folder_of_classes_is_divided_class_by_class_and_the_split_says_how(tmp_path):
    drawn(tmp_path)
    tasks = [image_archive(tmp_path, file="pets", split=split) for split in (0, 0, 1, 2, 3)]
    assert all(torch.bincount(task.test.y).tolist() == [1, 1] for task in tasks)
    assert torch.equal(both(tasks[0]), both(tasks[1]))
    assert len({tuple(task.test.x[:, 0, 0, 0].tolist()) for task in tasks}) > 1
    assert sorted(both(tasks[0])[:, 0, 0, 0].tolist()) == [0, 1, 2, 3, 40, 41, 42, 43]


@pytest.mark.parametrize(
    ("modes", "shape"),
    [
        (("L",), (1, 6, 6)),
        (("LA", "L", "1"), (1, 6, 6)),
        (("RGB", "L"), (3, 6, 6)),
        (("P", "RGBA"), (3, 6, 6)),
    ],
)
def test_colours_are_read_in_one_way(modes, shape, tmp_path):
    assert image_archive(drawn(tmp_path, modes=modes), file="pets").sample_shape == shape


def test_cmyk_and_grey_of_16_bits(tmp_path):
    drawn(tmp_path)
    wide = np.full((6, 6), 40_000, np.uint16)
    for name in ("cat", "dog"):
        for number in range(4):
            path = tmp_path / "pets" / name / f"{number}.png"
            path.unlink()
            Image.fromarray(wide).save(path.with_suffix(".tiff"))
    task = image_archive(tmp_path, file="pets")
    assert (task.sample_shape, both(task).unique().tolist()) == ((1, 6, 6), [40_000 >> 8])
    Image.new("CMYK", (6, 6), (0, 0, 0, 0)).save(tmp_path / "pets" / "cat" / "white.jpg")
    task = image_archive(tmp_path, file="pets")
    assert (task.sample_shape, both(task).max().item()) == ((3, 6, 6), 255)


def test_pictures_of_several_sizes_need_one(tmp_path):
    drawn(drawn(tmp_path, "train"), "test", side=9)
    with pytest.raises(ValueError, match=r"images of train are \(3, 6, 6\) and those of test \(3, 9, 9\); name a size"):
        image_archive(tmp_path, file="pets")
    Image.new("RGB", (7, 5)).save(tmp_path / "pets" / "train" / "dog" / "odd.png")
    with pytest.raises(ValueError, match=r"0.png is 6x6 pixels and .*odd.png 7x5: .* resized to one by size=64"):
        image_archive(tmp_path, file="pets")
    assert image_archive(tmp_path, file="pets", size=4).sample_shape == (3, 4, 4)


def test_a_picture_that_is_none_is_named(tmp_path):
    drawn(tmp_path)
    path = tmp_path / "pets" / "dog" / "broken.png"
    for content in (b"no picture", (tmp_path / "pets" / "dog" / "1.png").read_bytes()[:40]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"broken\.png cannot be read as a picture"):
            image_archive(tmp_path, file="pets")


def test_folders_without_two_classes_are_refused(tmp_path):
    (tmp_path / "pets").mkdir()
    with pytest.raises(ValueError, match="pets is no folder of folders with pictures"):
        image_archive(tmp_path, file="pets")
    (tmp_path / "pets" / "cat").mkdir()
    with pytest.raises(ValueError, match="pets is no folder of folders with pictures"):
        image_archive(tmp_path, file="pets")
    Image.new("L", (3, 3)).save(tmp_path / "pets" / "cat" / "a.png")
    with pytest.raises(ValueError, match="has the class cat alone"):
        image_archive(tmp_path, file="pets")
    (tmp_path / "pets" / "dog").mkdir()
    Image.new("L", (3, 3)).save(tmp_path / "pets" / "dog" / "a.png")
    with pytest.raises(ValueError, match=r"is left to train on|0 of 2 pictures to test on"):
        image_archive(tmp_path, file="pets")


def test_a_class_that_is_only_tested_is_refused(tmp_path):
    drawn(drawn(tmp_path, "train"), "test")
    (tmp_path / "pets" / "test" / "eel").mkdir()
    Image.new("RGB", (6, 6)).save(tmp_path / "pets" / "test" / "eel" / "a.png")
    with pytest.raises(ValueError, match="test has a class eel, which train has not: cat, dog"):
        image_archive(tmp_path, file="pets")
