"""Reading the published files of SVHN, from tiny made ones: digits, orientation, checksums, downloads."""

from __future__ import annotations

import shlex

import numpy as np
import pytest
import scipy.io
import torch

from tests.tasks.conftest import UNREACHABLE, copy_all, md5
from thornbed.tasks.sources import MissingData
from thornbed.tasks.sources.torchvision_files import torchvision_datasets
from thornbed.tasks.svhn import svhn

FILES = {"train": "train_32x32.mat", "test": "test_32x32.mat"}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Make the two files of a tiny SVHN, and let torchvision believe in their md5."""
    source = torchvision_datasets().SVHN
    rng = np.random.default_rng(0)
    published, data_dir = tmp_path / "published", tmp_path / "data"
    published.mkdir()
    data_dir.mkdir()
    made, listed = {}, dict(source.split_list)
    for split, labels in (("train", [1, 9, 10, 2, 10, 5]), ("test", [10, 3, 1])):
        x = rng.integers(0, 256, size=(32, 32, 3, len(labels)), dtype=np.uint8)
        made[split] = x, labels
        path = published / FILES[split]
        scipy.io.savemat(path, {"X": x, "y": np.array(labels, dtype=np.uint8)[:, None]})
        listed[split] = [UNREACHABLE + path.name, path.name, md5(path)]
    monkeypatch.setattr(source, "split_list", listed)
    return data_dir, published, made, source


def test_the_digit_0_is_written_as_10(files):
    data_dir, published, _, _ = files
    copy_all(published, data_dir)
    task = svhn(data_dir)
    assert task.train.y.tolist() == [1, 9, 0, 2, 0, 5]
    assert task.test.y.tolist() == [0, 3, 1]
    assert task.class_names[0] == "0"


def test_rows_columns_and_colours_are_where_they_were(files):
    data_dir, published, made, source = files
    copy_all(published, data_dir)
    task = svhn(data_dir)
    for split, samples in (("train", task.train), ("test", task.test)):
        x, _ = made[split]
        for row, column, colour, image in ((0, 31, 0, 2), (31, 0, 2, 0), (7, 12, 1, 1)):
            assert samples.x[image, colour, row, column] == x[row, column, colour, image]
        theirs = source(data_dir, split)
        assert np.array_equal(samples.x.numpy(), theirs.data)
        assert samples.y.tolist() == theirs.labels.tolist()


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_file_with_another_checksum_is_never_opened(files, monkeypatch, split, damage):
    data_dir, published, _, _ = files
    copy_all(published, data_dir)
    path = data_dir / FILES[split]
    if damage == "missing":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 255]))
    opened = []
    monkeypatch.setattr(scipy.io, "loadmat", lambda *args, **kwargs: opened.append(args))
    with pytest.raises(MissingData, match=UNREACHABLE + path.name):
        svhn(data_dir)
    assert opened == []


def test_what_is_missing_is_downloaded_and_extra_is_not(files, mirror, monkeypatch):
    data_dir, _, _, source = files
    served = {split: [mirror + name, name, source.split_list[split][2]] for split, name in FILES.items()}
    monkeypatch.setattr(source, "split_list", source.split_list | served)
    (data_dir / FILES["train"]).write_bytes(b"a download that broke off")
    assert len(svhn(data_dir).train) == 6
    assert sorted(path.name for path in data_dir.glob("*.mat")) == sorted(FILES.values())
    unreachable = {split: [UNREACHABLE + name, name, served[split][2]] for split, name in FILES.items()}
    monkeypatch.setattr(source, "split_list", source.split_list | unreachable)
    assert len(svhn(data_dir).test) == 3  # and found again without a network


def test_another_file_at_the_address_is_refused(files, mirror, monkeypatch):
    data_dir, published, _, source = files
    served = {split: [mirror + name, name, source.split_list[split][2]] for split, name in FILES.items()}
    monkeypatch.setattr(source, "split_list", source.split_list | served)
    scipy.io.savemat(published / FILES["test"], {"X": np.zeros((32, 32, 3, 3), np.uint8), "y": [[1], [2], [3]]})
    for _ in range(2):  # nor is the file that it left behind taken the next time
        with pytest.raises(MissingData, match=FILES["test"]):
            svhn(data_dir)


def test_without_data_and_network_one_sentence_names_both_ways_and_its_command_fills_the_folder(
    files, mirror, monkeypatch
):
    data_dir, _, _, source = files
    with pytest.raises(MissingData) as refused:
        svhn(data_dir)
    sentence = str(refused.value)
    assert "\n" not in sentence
    assert "svhn.npz (x_train uint8 (N, 32, 32, 3), y_train integers (N,) from 0 to 9" in sentence
    command = sentence[sentence.index('python -c "') :]
    fetched = [f"torchvision_datasets().SVHN({str(data_dir)!r}, {split!r}, download=True)" for split in FILES]
    assert command.endswith(f'{"; ".join(fetched)}"')
    served = {split: [mirror + name, name, source.split_list[split][2]] for split, name in FILES.items()}
    monkeypatch.setattr(source, "split_list", source.split_list | served)
    exec(shlex.split(command)[2], {})
    assert len(svhn(data_dir).train) == 6


def test_the_users_own_archive_comes_before_the_files(files):
    data_dir, published, _, _ = files
    copy_all(published, data_dir)
    x = np.random.default_rng(1).integers(0, 256, size=(4, 32, 32, 3), dtype=np.uint8)
    np.savez(data_dir / "svhn.npz", x_train=x, y_train=[0, 1, 2, 9], x_test=x, y_test=[9, 2, 1, 0])
    task = svhn(data_dir)
    assert torch.equal(task.train.x, torch.from_numpy(x).permute(0, 3, 1, 2))
    assert task.test.y.tolist() == [9, 2, 1, 0]


def test_label_10_in_the_archive_is_refused(tmp_path):
    x = np.zeros((2, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "svhn.npz", x_train=x, y_train=[1, 10], x_test=x, y_test=[1, 2])
    with pytest.raises(ValueError, match="labels from 1 to 10, expected labels from 0 to 9"):
        svhn(tmp_path)
