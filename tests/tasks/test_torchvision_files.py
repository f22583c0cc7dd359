"""Reading torchvision's archives of MNIST, from tiny made files, and what happens without a network."""

from __future__ import annotations

import gzip
import importlib
import os
import shlex
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import thornbed.tasks as tasks
from tests.tasks.conftest import UNREACHABLE, copy_all, md5
from thornbed.tasks.cifar10 import cifar10
from thornbed.tasks.cifar100_coarse import cifar100_coarse
from thornbed.tasks.fashion_mnist import fashion_mnist
from thornbed.tasks.mnist import mnist
from thornbed.tasks.sources import MissingData
from thornbed.tasks.sources.torchvision_files import torchvision_datasets
from thornbed.tasks.svhn import svhn


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture(params=[("MNIST", mnist), ("FashionMNIST", fashion_mnist)], ids=["mnist", "fashion_mnist"])
def archives(request, tmp_path, monkeypatch):
    """Make the four archives of a tiny data set in a folder, and let torchvision believe in their checksums."""
    name, task = request.param
    source = getattr(torchvision_datasets(), name)
    rng = np.random.default_rng(0)
    published = tmp_path / "published"
    published.mkdir()
    made, resources = {}, []
    for part, (file_name, _) in zip(("x_train", "y_train", "x_test", "y_test"), source.resources):
        size = 7 if "train" in part else 4
        made[part] = rng.integers(0, 10, size=size if part[0] == "y" else (size, 28, 28), dtype=np.uint8)
        (published / file_name).write_bytes(gzip.compress(idx(made[part])))
        resources.append((file_name, md5(published / file_name)))
    monkeypatch.setattr(source, "resources", resources)
    monkeypatch.setattr(source, "mirrors", [UNREACHABLE])
    raw = tmp_path / "data" / name / "raw"
    raw.mkdir(parents=True)
    return task, tmp_path / "data", raw, published, made, source


def test_archives_are_read(archives):
    task, data_dir, raw, published, made, _ = archives
    copy_all(published, raw)
    loaded = task(data_dir)
    assert np.array_equal(loaded.train.x[:, 0].numpy(), made["x_train"])
    assert np.array_equal(loaded.test.x[:, 0].numpy(), made["x_test"])
    assert loaded.train.y.tolist() == made["y_train"].tolist()
    assert loaded.test.y.tolist() == made["y_test"].tolist()


def test_torchvision_reads_the_same_from_the_same_folder(archives):
    task, data_dir, raw, published, _, source = archives
    copy_all(published, raw)
    theirs = source(data_dir, train=True, download=True)
    assert np.array_equal(task(data_dir).train.x[:, 0].numpy(), theirs.data.numpy())
    assert task(data_dir).train.y.tolist() == theirs.targets.tolist()


@pytest.mark.parametrize("damage", ["missing", "cut off", "changed"])
def test_a_damaged_download_is_not_taken_for_data(archives, damage):
    task, data_dir, raw, published, _, source = archives
    copy_all(published, raw)
    source(data_dir, download=True)  # leaves extracted files too, which must not be taken instead
    archive = raw / source.resources[0][0]
    content = archive.read_bytes()
    if damage == "missing":
        archive.unlink()
    else:
        archive.write_bytes(content[:-10] if damage == "cut off" else content[:-9] + b"x" + content[-8:])
    with pytest.raises(MissingData) as refused:
        task(data_dir)
    assert UNREACHABLE in str(refused.value)


def test_what_is_missing_is_downloaded(archives, mirror, monkeypatch):
    task, data_dir, raw, _, made, source = archives
    monkeypatch.setattr(source, "mirrors", [UNREACHABLE, mirror])
    (raw / source.resources[0][0]).write_bytes(b"a download that broke off")
    assert np.array_equal(task(data_dir).train.x[:, 0].numpy(), made["x_train"])
    monkeypatch.setattr(source, "mirrors", [UNREACHABLE])
    assert len(task(data_dir).test) == 4  # and found again without a network


def test_a_mirror_with_other_files_is_refused(archives, mirror, monkeypatch):
    task, data_dir, _, published, _, source = archives
    (published / source.resources[2][0]).write_bytes(gzip.compress(idx(np.zeros((4, 28, 28), dtype=np.uint8))))
    monkeypatch.setattr(source, "mirrors", [mirror])
    for _ in range(2):  # nor is the file that it left behind taken the next time
        with pytest.raises(MissingData, match=source.resources[2][0]):
            task(data_dir)


def test_without_data_and_network_one_sentence_names_both_ways(archives):
    task, data_dir, _, _, _, source = archives
    with pytest.raises(MissingData) as refused:
        task(data_dir)
    sentence = str(refused.value)
    assert "\n" not in sentence
    assert f"{task.__name__}.npz (x_train uint8 (N, 28, 28) or (N, 28, 28, 1), y_train integers (N,) " in sentence
    name = source.__name__
    code = "from thornbed.tasks.sources.torchvision_files import torchvision_datasets; "
    code += f"torchvision_datasets().{name}({str(data_dir)!r}, download=True)"
    assert f'python -c "{code}"' in sentence
    # Typed as it is printed, it gets as far as the download, whatever torch and torchvision think of each other.
    env = {**os.environ, "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    typed = subprocess.run(shlex.split(f'python -c "{code}"'), env=env, capture_output=True, text=True, check=False)
    assert "Error downloading" in typed.stderr or "urlopen error" in typed.stderr, typed.stderr[-500:]


def test_the_users_own_archive_comes_before_torchvisions_folder(archives):
    task, data_dir, raw, published, made, _ = archives
    copy_all(published, raw)
    own = {"x_train": 255 - made["x_train"], "y_train": made["y_train"], "x_test": made["x_test"]}
    np.savez(data_dir / f"{task.__name__}.npz", **own, y_test=made["y_test"])
    assert np.array_equal(task(data_dir).train.x[:, 0].numpy(), 255 - made["x_train"])


@pytest.mark.parametrize("task", [mnist, fashion_mnist, cifar10, cifar100_coarse, svhn], ids=lambda task: task.__name__)
def test_what_the_sentence_says_is_what_torchvision_fetches(task):
    named = importlib.import_module(task.__module__).SOURCE
    source = getattr(torchvision_datasets(), named.torchvision_class)
    if hasattr(source, "resources"):
        fetched = [(source.mirrors[0] + file_name, md5) for file_name, md5 in source.resources]
    elif hasattr(source, "split_list"):
        fetched = [(source.split_list[split][0], source.split_list[split][2]) for split in named.torchvision_splits]
    else:
        fetched = [(source.url, source.tgz_md5)]
    assert list(named.published) == fetched
    with pytest.raises(MissingData) as refused:
        task(None)
    for address, checksum in fetched:
        assert f"{address} (md5 {checksum})" in str(refused.value)


def test_operators_are_declared_only_where_they_are_missing():
    """In a fresh process: the import works, twice, and nothing was declared over operators that load."""
    program = (
        "import torch\n"
        "from thornbed.tasks.sources import torchvision_shim as shim\n"
        "assert not hasattr(torch.ops.torchvision, 'nms')\n"
        "shim.declare_missing_operators()\n"
        "import torchvision.datasets, torchvision.extension\n"
        "assert hasattr(torch.ops.torchvision, 'nms')\n"
        "shim.declare_missing_operators()\n"
        "assert len(shim._declared) == (0 if torchvision.extension._has_ops() else 1)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(tasks.__file__).parent.parent,
        env=dict(os.environ),
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
