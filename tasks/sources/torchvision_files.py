"""Reading the files that torchvision downloads MNIST, Fashion-MNIST, CIFAR and SVHN as, and fetching them.

Source: torchvision.datasets (addresses, file names and md5 checksums are its own, read from its classes). A file is
opened only after its checksum was found right, so a partial or damaged download is fetched again and never read.
"""

from __future__ import annotations

import gzip
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from http.client import HTTPException
from pathlib import Path
from types import ModuleType

import numpy as np
import scipy.io
import torch
from filelock import FileLock

from thornbed.tasks.samples import Samples
from thornbed.tasks.sources.torchvision_shim import declare_missing_operators

DOWNLOAD_ERRORS = (OSError, RuntimeError, HTTPException)
"""What a download can end with: no network, a folder that cannot be written, a wrong checksum."""

_log = logging.getLogger(__name__)


def torchvision_datasets() -> ModuleType:
    """Import and return `torchvision.datasets`; here and not at the top of the module, because it takes a second."""
    declare_missing_operators()
    import torchvision.datasets

    return torchvision.datasets


def read_idx_archives(dataset: str, data_dir: Path) -> tuple[Samples, Samples]:
    """Return training and test samples from data_dir/DATASET/raw/*-ubyte.gz, downloading what is missing.

    `dataset` is torchvision's class, such as "MNIST". Only the archives are read: of the files that torchvision
    extracts beside them nobody knows a checksum. Raises one of DOWNLOAD_ERRORS where a download fails.
    """
    source = getattr(torchvision_datasets(), dataset)
    raw = data_dir / dataset / "raw"
    if not _whole(raw, source.resources):
        with _one_at_a_time(dataset, data_dir):
            for file_name, md5 in source.resources:
                _fetch([mirror + file_name for mirror in source.mirrors], raw / file_name, md5)
    images_train, labels_train, images_test, labels_test = (_idx(raw / name) for name, _ in source.resources)
    return _grey(images_train, labels_train), _grey(images_test, labels_test)


def read_cifar(dataset: str, data_dir: Path) -> tuple[Samples, Samples]:
    """Return training and test samples from data_dir/cifar-10-batches-py or cifar-100-python, downloading if need be.

    `dataset` is torchvision's class, "CIFAR10" or "CIFAR100"; labels of the latter are the fine ones. The batches are
    pickles. torchvision unpickles them only when their md5 is that of the published files, whose contents are known;
    no other file is unpickled. Raises one of DOWNLOAD_ERRORS where the download fails.
    """
    source = getattr(torchvision_datasets(), dataset)
    files = [*source.train_list, *source.test_list, (source.meta["filename"], source.meta["md5"])]
    if not _whole(data_dir / source.base_folder, files):
        with _one_at_a_time(dataset, data_dir):
            source(data_dir, download=True)
    train, test = (source(data_dir, train=split == "train") for split in ("train", "test"))
    return _colour(train.data, train.targets), _colour(test.data, test.targets)


def read_svhn(data_dir: Path) -> tuple[Samples, Samples]:
    """Return training and test samples from data_dir/train_32x32.mat and test_32x32.mat, downloading what is missing.

    The published files write the digit 0 as label 10; here it is label 0. Raises one of DOWNLOAD_ERRORS where a
    download fails.
    """
    splits = torchvision_datasets().SVHN.split_list
    published = [splits["train"], splits["test"]]
    if not _whole(data_dir, [(file_name, md5) for _, file_name, md5 in published]):
        with _one_at_a_time("SVHN", data_dir):
            for address, file_name, md5 in published:
                _fetch([address], data_dir / file_name, md5)
    train, test = (_digits(data_dir / file_name) for _, file_name, _ in published)
    return train, test


def _whole(folder: Path, files: Sequence[tuple[str, str]]) -> bool:
    from torchvision.datasets.utils import check_integrity

    return all(check_integrity(folder / file_name, md5) for file_name, md5 in files)


def _one_at_a_time(dataset: str, data_dir: Path) -> AbstractContextManager[object]:
    """Keep the processes of one run from writing into each other's downloads."""
    _log.warning("downloading %s into %s", dataset, data_dir)
    return FileLock(data_dir / f".{dataset}.lock")


def _fetch(addresses: Sequence[str], path: Path, md5: str) -> None:
    """Download the file from the first address that has it, unless it is there already."""
    from torchvision.datasets.utils import download_url

    failures: list[str] = []
    for address in addresses:
        try:
            download_url(address, path.parent, path.name, md5)
        except DOWNLOAD_ERRORS as error:
            failures.append(f"{address}: {error}")
        else:
            return
    raise RuntimeError("; ".join(failures))


def _idx(path: Path) -> np.ndarray:
    """Read an array of bytes in idx format: four bytes 0 0 8 k, k big-endian sizes of four bytes, then the bytes."""
    content = gzip.decompress(path.read_bytes())
    if content[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} is no idx file of bytes: it begins with {content[:4]!r}")
    num_axes = content[3]
    shape = np.frombuffer(content, dtype=">i4", count=num_axes, offset=4)
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * num_axes).reshape(shape)


def _digits(path: Path) -> Samples:
    """Read SVHN's arrays X (32, 32, 3, N), rows before columns, and y (N, 1), from 1 to 10."""
    arrays = scipy.io.loadmat(path, variable_names=["X", "y"])
    return _colour(arrays["X"].transpose(3, 0, 1, 2), arrays["y"].ravel() % 10)


def _grey(images: np.ndarray, labels: np.ndarray) -> Samples:
    """(N, H, W) and (N,) bytes -> samples (N, 1, H, W)."""
    return Samples(torch.from_numpy(images.copy()).unsqueeze(1), torch.from_numpy(labels.astype(np.int64)))


def _colour(images: np.ndarray, labels: Sequence[int] | np.ndarray) -> Samples:
    """(N, H, W, 3) bytes and N integers -> samples (N, 3, H, W)."""
    y = torch.from_numpy(np.asarray(labels, dtype=np.int64))
    return Samples(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), y)
