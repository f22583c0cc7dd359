"""The published data themselves, from a folder with NAME.npz of image tasks, tables and tweets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from thornbed.tasks.cifar10 import cifar10
from thornbed.tasks.cifar100_coarse import cifar100_coarse
from thornbed.tasks.extrasensory import USER, extrasensory
from thornbed.tasks.fashion_mnist import fashion_mnist
from thornbed.tasks.mnist import mnist
from thornbed.tasks.multitask.har import har
from thornbed.tasks.multitask.landmine import landmine
from thornbed.tasks.multitask.parkinsons_motor import parkinsons_motor
from thornbed.tasks.multitask.parkinsons_total import parkinsons_total
from thornbed.tasks.phishing_websites import phishing_websites
from thornbed.tasks.sent140 import sent140
from thornbed.tasks.svhn import svhn

FOLDER = os.environ.get("THORNBED_TEST_DATA", "")

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not FOLDER, reason="THORNBED_TEST_DATA names no folder with real data"),
]


@pytest.mark.parametrize(
    ("task", "num_train", "num_test", "shape"),
    [
        (mnist, 60_000, 10_000, (1, 28, 28)),
        (fashion_mnist, 60_000, 10_000, (1, 28, 28)),
        (cifar10, 50_000, 10_000, (3, 32, 32)),
        (cifar100_coarse, 50_000, 10_000, (3, 32, 32)),
        (svhn, 73_257, 26_032, (3, 32, 32)),
    ],
)
def test_numbers_classes_and_pixels_are_the_published_ones(task, num_train, num_test, shape):
    if not (Path(FOLDER) / f"{task.__name__}.npz").exists():
        pytest.skip(f"{FOLDER} has no {task.__name__}.npz")
    loaded = task(Path(FOLDER))
    assert (len(loaded.train), len(loaded.test)) == (num_train, num_test)
    assert loaded.sample_shape == shape
    if task not in (mnist, svhn):  # the others are balanced
        assert torch.bincount(loaded.test.y).tolist() == [num_test // loaded.num_classes] * loaded.num_classes
    pixels = loaded.train.x[::5].double() / 255
    # copies of CIFAR-10 that went through JPEG lose a little contrast
    torch.testing.assert_close(pixels.mean(dim=(0, 2, 3)), torch.tensor(loaded.mean).double(), atol=0.004, rtol=0)
    torch.testing.assert_close(
        pixels.std(dim=(0, 2, 3), correction=0), torch.tensor(loaded.std).double(), atol=0.004, rtol=0
    )
    few = task(Path(FOLDER), num_train=1000, num_test=100)
    assert len(few.train) == 1000
    assert len(few.test) == 100


def test_phishing_web_sites_are_the_published_table_and_its_sign_means_what_we_say():
    if not (Path(FOLDER) / "phishing_websites.csv").exists():
        pytest.skip(f"{FOLDER} has no phishing_websites.csv")
    task = phishing_websites(Path(FOLDER))
    both = task.train.join(task.test)
    assert (len(task.train), len(task.test)) == (8844, 2211)
    # As published: 4,898 phishing, 6,157 legitimate.
    assert torch.bincount(both.y).tolist() == [6157, 4898]
    # A trusted certificate (SSLfinal_State 1) and anchors into the own domain speak for legitimate sites.
    for feature in (7, 13):
        trusted, doubtful = (both.y[both.x[:, feature] == value].float().mean() for value in (1, -1))
        assert trusted < 0.15
        assert doubtful > 0.85
    twins = set(map(tuple, task.train.x.tolist()))
    assert sum(tuple(row) in twins for row in task.test.x.tolist()) / len(task.test) == pytest.approx(0.65, abs=0.005)


def test_the_user_of_the_copur_paper_is_the_published_file_and_its_numbers_are_the_papers():
    if not (Path(FOLDER) / f"{USER}.features_labels.csv.gz").exists():
        pytest.skip(f"{FOLDER} has no {USER}.features_labels.csv.gz")
    task = extrasensory(Path(FOLDER))
    assert (len(task.train), len(task.test)) == (1721, 465)
    assert [len(block) for block in task.blocks] == [26, 26, 31, 46, 9, 17, 28, 26, 8, 8]
    assert torch.bincount(task.train.y).tolist() == [754, 967]
    assert torch.bincount(task.test.y).tolist() == [132, 333]  # 71.6% are the larger class
    assert sum(deviation == 1.0 for deviation in task.std) == 22  # of sensors that are absent, or never change
    assert torch.bincount(extrasensory(Path(FOLDER), label="LOC_home").train.y).tolist() != [754, 967]


def test_tweets_are_read_and_nearly_all_words_have_vectors():
    files = ("sentiment140_subset.csv.gz", "glove_twitter_25d_12k.npz")
    if not all((Path(FOLDER) / file).exists() for file in files):
        pytest.skip(f"{FOLDER} has no {' or no '.join(files)}")
    task = sent140(Path(FOLDER), tweets=Path(files[0]), vectors=Path(files[1]))
    assert len(task.train) + len(task.test) == 30_461
    assert len(task.test) == pytest.approx(3046, rel=0.05)
    assert task.input_shape == (30, 25)
    tokens = task.train.x[task.train.x != 0]
    assert float((tokens == 1).float().mean()) < 0.15
    assert 10 < len(tokens) / len(task.train) < 15


@pytest.mark.parametrize(
    ("task", "file", "name", "nodes", "points", "features"),
    [
        (landmine, "landmine.mat", "landmine", 29, 14_820, 9),
        (parkinsons_total, "parkinsons_updrs.csv", "parkinsons_total", 42, 5875, 16),
        (parkinsons_motor, "parkinsons_updrs.csv", "parkinsons_motor", 42, 5875, 16),
        (har, "uci_har_561_rebuilt.npz", "har_rebuilt", 30, 10_299, 557),  # four of 561 never move
    ],
)
def test_nodes_points_and_features_are_the_published_ones(task, file, name, nodes, points, features):
    if not (Path(FOLDER) / file).exists():
        pytest.skip(f"{FOLDER} has no {file}")
    loaded = task(Path(FOLDER))
    assert (loaded.name, len(loaded.nodes), len(loaded.features) - 1) == (name, nodes, features)
    assert sum(len(node.train) + len(node.test) for node in loaded.nodes) == points
    if task is landmine:
        mines = sum((node.train.y == 1).sum() + (node.test.y == 1).sum() for node in loaded.nodes)
        assert mines == 904  # 6.1%
