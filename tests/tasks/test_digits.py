"""The digits of scikit-learn: their scale, their split, and what plain federated averaging makes of their defaults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from thornbed.tasks.digits import DEFAULTS, digits
from thornbed.tasks.models import normalised
from thornbed.tasks.models.cnn import cnn
from thornbed.tasks.partitions.dirichlet import dirichlet
from thornbed.tasks.sources.subset import stratified_rows


def test_the_split_covers_every_image_once_and_every_class_in_its_share():
    task = digits(None)
    assert len(task.train) == 1437
    assert len(task.test) == 360
    both = torch.cat([task.train.x, task.test.x]).flatten(1).numpy()
    levels = load_digits().data
    # grey levels 0..16 are spread over 0..255, and no two levels fall together
    assert np.array_equal(np.unique(np.rint(both / 255 * 16), axis=0), np.unique(levels, axis=0))
    assert both.max() == 255
    assert torch.bincount(task.test.y).tolist() == [36, 37, 35, 37, 36, 36, 36, 36, 35, 36]


def described_rows() -> np.ndarray:
    """Return the training rows, found by an independent reading of the description of the split."""
    labels = load_digits().target
    order = np.random.RandomState(0).permutation(1797)
    wanted = {label: int(count) for label, count in enumerate(torch.bincount(digits(None).test.y))}
    in_test = set()
    for row in order:
        if wanted[labels[row]] > 0:
            wanted[labels[row]] -= 1
            in_test.add(int(row))
    return np.array([row for row in range(1797) if row not in in_test])


def test_training_rows_are_those_described():
    rows = described_rows()
    expected = np.rint(load_digits().data[rows] * 255 / 16).reshape(-1, 1, 8, 8)
    assert np.array_equal(digits(None).train.x.numpy(), expected)


def test_the_split_never_changes():
    """The sum over test images of row number times label: nearly any other choice of rows has another."""
    task = digits(None)
    assert int((torch.arange(360) * task.test.y).sum()) == 288_319


def test_mean_and_deviation_are_those_of_the_training_pixels():
    task = digits(None)
    pixels = task.train.decoded().x
    assert task.mean == (round(float(pixels.mean()), 4),)
    assert task.std == (round(float(pixels.std(correction=0)), 4),)


def test_the_folder_is_not_looked_at(tmp_path: Path):
    assert len(digits(tmp_path / "absent").train) == 1437


def test_stratified_rows_by_hand():
    labels = torch.tensor([2, 0, 0, 1, 0, 2, 0, 0, 0, 1])  # 6, 2 and 2 of ten
    # five: shares 3, 1, 1; the first of each class
    assert stratified_rows(labels, 5).tolist() == [0, 1, 2, 3, 4]
    # four: shares 2.4, 0.8, 0.8: two, none, none, and the two left go to the largest remainders
    assert stratified_rows(labels, 4).tolist() == [0, 1, 2, 3]
    # three: shares 1.8, 0.6, 0.6: the two left go to class 0 and, of equal remainders, to the lower class
    assert stratified_rows(labels, 3).tolist() == [1, 2, 3]
    assert stratified_rows(labels, 1).tolist() == [1]
    assert stratified_rows(labels, 10).tolist() == list(range(10))


def test_stratified_rows_of_any_number_are_in_their_shares():
    labels = torch.from_numpy(np.random.default_rng(0).choice(7, size=200, p=[0.4, 0.3, 0.1, 0.1, 0.06, 0.03, 0.01]))
    sizes = torch.bincount(labels, minlength=7)
    for count in range(1, 201):
        rows = stratified_rows(labels, count)
        assert len(rows) == count
        assert bool((rows.diff() > 0).all())
        share = sizes * count / 200
        assert bool(((torch.bincount(labels[rows], minlength=7) - share).abs() < 1).all())


@pytest.mark.slow
def test_plain_federated_averaging_learns_with_the_defaults():
    task = digits(None)
    train, test = task.samples("train"), task.samples("test")
    assert (DEFAULTS.model, DEFAULTS.optimizer, DEFAULTS.partition) == (
        "cnn",
        "sgd(momentum=0.9)",
        "dirichlet(alpha=0.5)",
    )
    parts = [torch.from_numpy(rows) for rows in dirichlet(train.y, DEFAULTS.num_clients, 0, alpha=0.5)]
    generator = torch.Generator().manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = normalised(cnn(task.sample_shape, 10), task.mean, task.std)
    for _ in range(10):
        start = {key: value.clone() for key, value in network.state_dict().items()}
        average = {key: torch.zeros_like(value) for key, value in start.items()}
        for rows in parts:
            network.load_state_dict(start)
            optimizer = torch.optim.SGD(network.parameters(), DEFAULTS.learning_rate, momentum=0.9)
            for batch in rows[torch.randperm(len(rows), generator=generator)].split(DEFAULTS.batch_size):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(train.x[batch]), train.y[batch]).backward()
                optimizer.step()
            for key, value in network.state_dict().items():
                average[key] += value * (len(rows) / len(train))
        network.load_state_dict(average)
    torch.set_num_threads(threads)
    with torch.no_grad():
        accuracy = float((network(test.x).argmax(dim=1) == test.y).float().mean())
    assert accuracy > 0.88  # 0.91 to 0.97 over four seeds
