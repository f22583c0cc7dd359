"""Reading torchvision's folders of CIFAR-10 and CIFAR-100, from tiny made batches; none is unpickled unchecked."""

from __future__ import annotations

import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.tasks.conftest import UNREACHABLE, copy_all, md5
from thornbed.tasks.cifar10 import cifar10
from thornbed.tasks.cifar100_coarse import cifar100_coarse
from thornbed.tasks.sources import MissingData
from thornbed.tasks.sources.torchvision_files import torchvision_datasets

# Of the fine labels 0 to 9, apple to bottle, written down by hand from the names of the superclasses.
SUPERCLASS_OF_FINE = (4, 1, 14, 8, 0, 6, 7, 7, 18, 3)


@pytest.fixture(params=[("CIFAR10", cifar10), ("CIFAR100", cifar100_coarse)], ids=["cifar10", "cifar100_coarse"])
def batches(request, tmp_path, monkeypatch):
    """Make the batches of a tiny CIFAR, published as a tar archive, and let torchvision believe in their md5.

    Of CIFAR-100 the labels that are expected are those of the superclasses, the labels in the batches the fine ones.
    """
    name, task = request.param
    source = getattr(torchvision_datasets(), name)
    rng = np.random.default_rng(0)
    folder = tmp_path / "published" / source.base_folder
    folder.mkdir(parents=True)
    made, labels = {}, {}
    for attribute in ("train_list", "test_list"):
        listed = []
        for file_name, _ in getattr(source, attribute):
            stored = rng.integers(0, 10, size=4).tolist()
            made[file_name] = rng.integers(0, 256, size=(4, 3072), dtype=np.uint8)
            labels[file_name] = stored if name == "CIFAR10" else [SUPERCLASS_OF_FINE[label] for label in stored]
            batch = {"data": made[file_name], "labels" if name == "CIFAR10" else "fine_labels": stored}
            (folder / file_name).write_bytes(pickle.dumps(batch))
            listed.append([file_name, md5(folder / file_name)])
        monkeypatch.setattr(source, attribute, listed)
    meta = folder / source.meta["filename"]
    meta.write_bytes(pickle.dumps({source.meta["key"]: list("abcdefghij")}))
    monkeypatch.setattr(source, "meta", source.meta | {"md5": md5(meta)})
    archive = tmp_path / "published" / source.filename
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(folder, arcname=source.base_folder)
    monkeypatch.setattr(source, "tgz_md5", md5(archive))
    monkeypatch.setattr(source, "url", UNREACHABLE + source.filename)
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    return task, data_dir, folder, archive, made, labels, source


def copy_batches(folder: Path, data_dir: Path) -> Path:
    target = data_dir / folder.name
    target.mkdir()
    copy_all(folder, target)
    return target


def test_batches_are_read(batches):
    task, data_dir, folder, _, made, labels, source = batches
    copy_batches(folder, data_dir)
    loaded = task(data_dir)
    for samples, listed in ((loaded.train, source.train_list), (loaded.test, source.test_list)):
        pixels = np.concatenate([made[file_name] for file_name, _ in listed])
        assert np.array_equal(samples.x.numpy(), pixels.reshape(-1, 3, 32, 32))
        assert samples.y.tolist() == [label for file_name, _ in listed for label in labels[file_name]]


class Tripwire:
    """Remembers that it was unpickled."""

    sprung = False

    def __reduce__(self):
        return (_spring, ())


def _spring() -> None:
    Tripwire.sprung = True


@pytest.mark.parametrize("kind", ["train_list", "test_list", "meta"])
def test_a_batch_with_another_checksum_is_never_unpickled(batches, kind):
    task, data_dir, folder, _, _, _, source = batches
    file_name = source.meta["filename"] if kind == "meta" else getattr(source, kind)[-1][0]
    (copy_batches(folder, data_dir) / file_name).write_bytes(pickle.dumps(Tripwire()))
    sentence = rf"{task.__name__}\.npz .*x_train uint8 \(N, 32, 32, 3\).*\.{source.__name__}\(.*download=True"
    with pytest.raises(MissingData, match=sentence):
        task(data_dir)
    assert not Tripwire.sprung


def test_missing_batches_are_downloaded(batches, mirror, monkeypatch):
    task, data_dir, _, archive, _, labels, source = batches
    monkeypatch.setattr(source, "url", mirror + archive.name)
    assert task(data_dir).test.y.tolist() == labels[source.test_list[0][0]]
    monkeypatch.setattr(source, "url", UNREACHABLE)
    assert len(task(data_dir).train) == 4 * len(source.train_list)
