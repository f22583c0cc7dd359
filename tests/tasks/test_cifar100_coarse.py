"""The superclasses of CIFAR-100: a table that is whole, and an archive that holds their labels directly."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from thornbed.tasks.cifar100_coarse import COARSE_OF_FINE, SUPERCLASSES, cifar100_coarse


def test_a_hundred_fine_classes_are_five_in_each_superclass():
    assert len(COARSE_OF_FINE) == 100
    assert Counter(COARSE_OF_FINE) == dict.fromkeys(range(20), 5)
    assert len({name for names in SUPERCLASSES.values() for name in names}) == 100
    assert list(SUPERCLASSES) == sorted(SUPERCLASSES)  # as the published labels are


def test_every_fine_label_has_the_superclass_of_its_name():
    fine = sorted(name for names in SUPERCLASSES.values() for name in names)
    # Fine labels as published, spread over the alphabet: an order that slips anywhere between would show.
    published = {"apple": 0, "bicycle": 8, "cockroach": 24, "elephant": 31, "lamp": 40, "maple_tree": 47, "orchid": 54}
    published |= {"pear": 57, "rocket": 69, "seal": 72, "streetcar": 81, "television": 87, "trout": 91, "worm": 99}
    assert {name: fine.index(name) for name in published} == published
    for label, name in enumerate(fine):
        assert name in list(SUPERCLASSES.values())[COARSE_OF_FINE[label]]


def test_an_archive_holds_labels_of_superclasses(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, size=(20, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "cifar100_coarse.npz", x_train=x, y_train=np.arange(20), x_test=x, y_test=np.arange(20)[::-1])
    task = cifar100_coarse(tmp_path)
    assert task.train.y.tolist() == list(range(20))
    assert task.test.x[2, 1, 5, 7] == x[2, 5, 7, 1]
    assert task.class_names[int(task.test.y[0])] == "vehicles_2"


def test_fine_labels_in_the_archive_are_refused(tmp_path):
    x = np.zeros((2, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "cifar100_coarse.npz", x_train=x, y_train=[0, 99], x_test=x, y_test=[0, 1])
    with pytest.raises(ValueError, match="labels from 0 to 99, expected labels from 0 to 19"):
        cifar100_coarse(tmp_path)
