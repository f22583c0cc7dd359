"""Reading the published NUS-WIDE files, made small: which rows, whose columns, and what does not fit together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from thornbed.tasks import nus_wide as module
from thornbed.tasks.nus_wide import CLASSES, nus_wide
from thornbed.tasks.sources import MissingData

WIDTHS = {"CH": 64, "CORR": 144, "EDH": 73, "WT": 128, "CM55": 225}
IMAGES, TAGS, LABELS = "NUS_WID_Low_Level_Features/Low_Level_Features", "NUS_WID_Tags", "Groundtruth/TrainTestLabels"
# Of photograph r, class r % 7, where 5 is none of them, and 6 is grass and water.
SIZES = {"Train": 70, "Test": 35}


def made(folder: Path) -> Path:
    """Column c of photograph r has r + c / 1000, tag c is 1 where r + c is odd; lines end as the published ones do."""
    for place in (IMAGES, TAGS, LABELS):
        (folder / place).mkdir(parents=True)
    for side, size in SIZES.items():
        start = 0
        for kind, width in WIDTHS.items():
            lines = [
                " ".join(f"{row + (start + column) / 1000:.3f}" for column in range(width)) + " " for row in range(size)
            ]
            (folder / IMAGES / f"{side}_Normalized_{kind}.dat").write_text("\n".join(lines) + "\n")
            start += width
        tags = ["\t".join(str((row + column) % 2) for column in range(1000)) + "\t" for row in range(size)]
        (folder / TAGS / f"{side}_Tags1k.dat").write_text("\n".join(tags) + "\n")
        for number, concept in enumerate(CLASSES):
            holds = [row % 7 == number or (row % 7 == 6 and concept in ("grass", "water")) for row in range(size)]
            (folder / LABELS / f"Labels_{concept}_{side}.txt").write_text("".join(f"{int(one)}\n" for one in holds))
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    return made(tmp_path_factory.mktemp("published"))


@pytest.fixture
def copied(published, tmp_path) -> Path:
    """A flat copy, which a test may spoil."""
    for path in published.rglob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_photographs_of_one_class_alone_with_all_their_features_in_the_published_order(published, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 16)  # so that files are read in several parts
    task = nus_wide(published)
    rows = [row for row in range(70) if row % 7 < 5]
    assert task.train.y.tolist() == [row % 7 for row in rows]
    assert task.test.y.tolist() == [row % 7 for row in range(35) if row % 7 < 5]
    assert task.class_names == CLASSES
    expected = np.array([[row + column / 1000 for column in range(634)] for row in rows])
    np.testing.assert_allclose(task.train.x[:, :634].numpy(), expected, rtol=1e-6)
    assert task.train.x[3, 634:].tolist() == [float((rows[3] + column) % 2) for column in range(1000)]
    assert [len(block) for block in task.blocks] == [360, 274, 500, 500]
    assert [block[0] for block in task.blocks] == [0, 360, 634, 1134]
    assert task.mean[:634] == pytest.approx(expected.mean(axis=0), rel=1e-5)
    assert task.std[:634] == pytest.approx(expected.std(axis=0), rel=1e-5)


def test_other_classes_and_fewer_samples(published, copied):
    task = nus_wide(published, classes=("grass", "water"))
    assert torch.bincount(task.train.y).tolist() == [10, 10]
    few = nus_wide(published, num_train=10, num_test=5)
    assert torch.bincount(few.train.y).tolist() == [2] * 5
    assert few.train.x[:, 0].tolist() == [0, 1, 2, 3, 4, 7, 8, 9, 10, 11]
    assert few.mean[0] == pytest.approx(5.5)  # of these ten rows
    assert torch.equal(nus_wide(copied).train.x, nus_wide(published).train.x)


def test_files_that_are_missing_are_named(published, copied, tmp_path):
    (copied / "Test_Normalized_EDH.dat").unlink()
    (copied / "Labels_water_Train.txt").unlink()
    with pytest.raises(MissingData) as refused:
        nus_wide(copied)
    sentence = str(refused.value)
    assert f"but {tmp_path} lacks Test_Normalized_EDH.dat, Labels_water_Train.txt: unpack" in sentence
    assert "https://lms.comp.nus.edu.sg/" in sentence
    with pytest.raises(MissingData, match=r"lacks all 22 files, such as Train_Normalized_CH\.dat and Labels_per"):
        nus_wide(copied / "nowhere")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("Train_Normalized_WT.dat", "0.5 " * 127, r"read as lines of 128 numbers: a line has 127"),
        ("Train_Normalized_WT.dat", f"{'0.5 ' * 128}\n{'0.5 ' * 129}", r"read as lines of 128 numbers"),
        ("Train_Normalized_WT.dat", f"{'0.5 ' * 128}\n{'0.5 ' * 100}", "128 numbers: line 2 has fewer, or one that"),
        ("Train_Normalized_WT.dat", "0.5 " * 127 + "inf", "line 1 has fewer, or one that is not finite"),
        ("Train_Normalized_WT.dat", "0.5 " * 127 + "half", "read as lines of 128 numbers"),
        ("Train_Normalized_WT.dat", "", "read as lines of 128 numbers"),
        ("Train_Normalized_WT.dat", f"{'0.5 ' * 128}\n" * 69, r"has 69 lines and .*Labels_buildings_Train\.txt 70"),
        ("Test_Tags1k.dat", "1\t" * 999 + "\n", "read as lines of 1000 numbers: a line has 999"),
        ("Labels_water_Train.txt", "1\n" * 71, r"Labels_water_Train\.txt has 71 lines and .*_buildings_Train\.txt 70"),
        ("Labels_water_Train.txt", "1\n0\n2\n", r"Labels_water_Train\.txt, line 3: 2, expected 0 or 1"),
        ("Labels_water_Train.txt", "1\n" * 70, "no photograph to train on of buildings and no other class"),
    ],
)
def test_files_that_do_not_fit_are_refused_with_their_name(copied, name, content, sentence):
    (copied / name).write_text(content)
    with pytest.raises(ValueError, match=sentence) as refused:
        nus_wide(copied)
    if "photograph" not in sentence:
        assert name in str(refused.value)


def test_no_photograph_of_one_class_alone(copied):
    for concept in CLASSES:
        (copied / f"Labels_{concept}_Test.txt").write_text("1\n" * 35)
    with pytest.raises(ValueError, match="none of 35 photographs is of exactly one of the classes"):
        nus_wide(copied)


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        (("grass", "unicorn"), "nus_wide has no concept unicorn: there are airport, animal, .* zebra"),
        (("grass", "grass"), "two classes or more, all different"),
        (("grass",), "two classes or more, all different"),
    ],
)
def test_classes_that_cannot_be_are_refused(published, classes, sentence):
    with pytest.raises(ValueError, match=sentence):
        nus_wide(published, classes=classes)
