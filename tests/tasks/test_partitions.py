"""Partitions in numbers: hand-made cases, what the options do, and what is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from datasets import Dataset
from flwr_datasets.partitioner import ShardPartitioner

from thornbed.tasks.partitions.dirichlet import dirichlet
from thornbed.tasks.partitions.iid import iid
from thornbed.tasks.partitions.shards import shards
from thornbed.tasks.partitions.stratified import stratified


def class_counts(labels: np.ndarray, parts: list[np.ndarray]) -> np.ndarray:
    """Return how many rows of each class each partition has: (num_partitions, num_classes)."""
    return np.stack([np.bincount(labels[part], minlength=int(labels.max()) + 1) for part in parts])


def test_iid_sizes_differ_by_one_at_most():
    parts = iid(np.zeros(11, dtype=np.int64), 4, 0)
    assert sorted(map(len, parts)) == [2, 3, 3, 3]


def test_iid_shuffles_rows_that_lie_in_the_order_of_their_classes():
    labels = np.repeat(np.arange(10), 500)
    counts = class_counts(labels, iid(labels, 10, 0))
    assert counts.min() > 25
    assert counts.max() < 75


def test_shards_by_hand():
    # In the order of the classes: 1 3 5 7 | 0 2 4 6, cut into four shards of two; two clients get two of them.
    labels = np.array([1, 0, 1, 0, 1, 0, 1, 0])
    cuts = [{1, 3}, {5, 7}, {0, 2}, {4, 6}]
    seen = set()
    for seed in range(20):
        parts = [set(part.tolist()) for part in shards(labels, 2, seed)]
        for part in parts:
            assert sum(cut <= part for cut in cuts) == 2
            assert len(part) == 4
        seen.add(frozenset(parts[0]))
    assert len(seen) == 6  # every choice of two shards of four occurs


def test_shards_that_do_not_come_out_even_lose_no_row():
    parts = shards(np.arange(10) // 2, 3, 0)
    assert sorted(np.concatenate(parts).tolist()) == list(range(10))
    assert all(2 <= len(part) <= 4 for part in parts)


def test_shards_are_those_of_flower_where_flower_loses_none():
    labels = np.random.default_rng(1).integers(0, 10, size=1200)
    flowers = ShardPartitioner(30, "label", num_shards_per_partition=4, seed=9)
    flowers.dataset = Dataset.from_dict({"label": labels, "row": np.arange(1200)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = [sorted(flowers.load_partition(index)["row"]) for index in range(30)]
    assert [part.tolist() for part in shards(labels, 30, 9, shards_per_client=4)] == theirs


def test_fewer_shards_mean_fewer_classes():
    labels = np.repeat(np.arange(10), 100)
    for number in (1, 2, 5):
        counts = class_counts(labels, shards(labels, 20, 0, shards_per_client=number))
        assert (counts > 0).sum(axis=1).max() <= number


def test_alpha_decides_how_alike_the_clients_are():
    labels = np.random.default_rng(0).integers(0, 10, size=5000)

    def largest_share(alpha: float) -> float:
        counts = class_counts(labels, dirichlet(labels, 10, 0, alpha=alpha, min_size=1))
        return float((counts.max(axis=1) / counts.sum(axis=1)).mean())

    assert largest_share(1000.0) < 0.16
    assert 0.2 < largest_share(0.5) < 0.5
    assert largest_share(0.05) > 0.5


def test_min_size_holds():
    labels = np.random.default_rng(0).integers(0, 10, size=1000)
    sizes = {least: min(map(len, dirichlet(labels, 20, 3, alpha=0.3, min_size=least))) for least in (1, 18)}
    assert sizes[1] < 18  # so that the option had something to do
    assert sizes[18] >= 18


def test_a_dirichlet_that_cannot_be_drawn_is_refused_in_one_sentence_with_the_numbers():
    labels = np.random.default_rng(0).integers(0, 10, size=300)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError) as refused:
            dirichlet(labels, 100, 0, alpha=0.01)
    sentence = str(refused.value)
    assert "\n" not in sentence
    for figure in ("11 times", "100 partitions", "min_size = 2", "300 rows", "alpha = 0.01"):
        assert figure in sentence


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("inf"), float("nan")])
def test_an_impossible_alpha_is_refused(alpha):
    with pytest.raises(ValueError, match=f"dirichlet needs alpha above 0 and finite: alpha = {alpha}"):
        dirichlet(np.zeros(10, dtype=np.int64), 2, 0, alpha=alpha)


@pytest.mark.parametrize(
    ("partition", "num_partitions", "options", "sentence"),
    [
        (dirichlet, 2, {"min_size": 0}, "dirichlet needs min_size >= 1: min_size = 0"),
        (shards, 2, {"shards_per_client": 0}, "shards needs shards_per_client >= 1: shards_per_client = 0"),
        (shards, 3, {"shards_per_client": 4}, "shards needs 4 rows for each of 3 partitions, 12 in all: there are 10"),
        (dirichlet, 3, {"min_size": 4}, "dirichlet needs 4 rows for each of 3 partitions, 12 in all: there are 10"),
    ],
)
def test_options_that_ten_rows_cannot_meet_are_refused(partition, num_partitions, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        partition(np.zeros(10, dtype=np.int64), num_partitions, 0, **options)


def test_stratified_clients_have_every_label_once_where_there_are_as_many_as_clients() -> None:
    labels = np.repeat(np.arange(10), 6)
    parts = stratified(np.random.default_rng(0).permutation(labels), 6, 1)
    assert [len(part) for part in parts] == [10] * 6
    shuffled = np.random.default_rng(0).permutation(labels)
    assert all(sorted(shuffled[part]) == list(range(10)) for part in parts)


def test_stratified_shares_of_a_class_differ_by_one_at_most() -> None:
    labels = np.random.default_rng(3).choice(4, size=103, p=[0.1, 0.2, 0.3, 0.4])
    counts = np.array([np.bincount(labels[part], minlength=4) for part in stratified(labels, 7, 0)])
    assert (counts.max(axis=0) - counts.min(axis=0) <= 1).all()
