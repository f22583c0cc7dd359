"""Labels read from the gradient of the last layer: exact where the papers say so, refused where they cannot be."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from thornbed.attacks.inversion._labels import infer_labels


@pytest.mark.parametrize("num_classes", [2, 3, 10])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("signed_features", [True, False])
def test_idlg_is_exact_for_one_sample(num_classes, bias, signed_features, observe, images) -> None:
    if signed_features and not bias and num_classes == 2:
        pytest.skip("two opposite rows say nothing without the sign of the features")
    for label in range(num_classes):
        layer = nn.Linear(12, num_classes, bias=bias).to(torch.float64)
        model = nn.Sequential(nn.Flatten(), layer)
        x = images(1, (3, 2, 2), seed=label) - (0.5 if signed_features else 0.0)
        seen = observe(model, x, torch.tensor([label]))
        assert infer_labels("it", seen, "idlg").tolist() == [label]


@pytest.mark.parametrize("count", [1, 3, 5])
def test_gradinversion_finds_distinct_labels_behind_a_relu(count, network, observe, images, generator) -> None:
    for seed in range(5):
        # untrained and with small weights in the last layer, so that probabilities are even, as the method wants
        model = network(seed, num_classes=10)
        nn.init.normal_(model[-1].weight, std=0.01, generator=generator)
        labels = torch.randperm(10, generator=generator)[:count]
        found = infer_labels("it", observe(model, images(count, seed=seed), labels), "gradinversion")
        assert found.tolist() == sorted(labels.tolist())


def test_gradinversion_takes_the_rows_with_the_smallest_minimum(network, observe, images) -> None:
    seen = observe(network(), images(2), torch.tensor([0, 1]))
    rows = torch.zeros(5, 72, dtype=torch.float64)
    rows[1, 3], rows[4, 0], rows[2] = -0.5, -2.0, 0.1
    rows[0] = -0.4  # the smallest sum, not the smallest minimum
    seen.gradient["6.weight"].copy_(rows)
    assert infer_labels("it", seen, "gradinversion").tolist() == [1, 4]


def test_idlg_reads_the_bias_where_features_are_dead(network, observe, images) -> None:
    seen = observe(network(), images(1), torch.tensor([3]))
    seen.gradient["6.weight"].zero_()
    assert infer_labels("it", seen, "idlg").tolist() == [3]


def test_idlg_takes_the_row_without_a_positive_product(network, observe, images) -> None:
    seen = observe(network(), images(1), torch.tensor([0]))
    rows = torch.zeros(5, 72, dtype=torch.float64)
    del seen.gradient["6.bias"]  # which would tell without the rows
    # row 1 has the most negative sum of products, -8.5 - 2.95 - 0.2 + 0.5; row 3 is the one with none above 0
    rows[:, :2] = torch.tensor([[3.0, 1.0], [-3.0, 0.5], [1.0, 0.1], [-0.1, -1.0], [0.0, 1.0]])
    seen.gradient["6.weight"].copy_(rows)
    assert infer_labels("it", seen, "idlg").tolist() == [3]


def test_counts_finds_labels_that_repeat(network, observe, images, generator) -> None:
    for seed in range(5):
        model = network(seed, num_classes=10)
        nn.init.normal_(model[-1].weight, std=0.01, generator=generator)
        labels = torch.randint(10, (16,), generator=generator)
        found = infer_labels("it", observe(model, images(16, seed=seed), labels), "counts")
        assert found.tolist() == sorted(labels.tolist())


def test_counts_gives_as_many_labels_as_there_are_samples(network, observe, images) -> None:
    seen = observe(network(), images(3), torch.tensor([0, 1, 2]))
    for bias in ([-9.0, -9, 0, 0, 0], [9.0, 9, 9, 9, 9], [-0.4, 0.1, 0.1, 0.1, 0.1]):
        seen.gradient["6.bias"].copy_(torch.tensor(bias))
        assert len(infer_labels("it", seen, "counts")) == 3


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_counts_gives_as_many_labels_for_a_client_that_diverged(number, network, observe, images) -> None:
    seen = observe(network(), images(3), torch.tensor([0, 1, 2]))
    for bias in ([number] * 5, [number, 0.0, 0.0, 0.0, 0.0], [number, number, -0.5, 0.0, 0.0]):
        seen.gradient["6.bias"].copy_(torch.tensor(bias))
        found = infer_labels("it", seen, "counts")
        assert len(found) == 3
        assert 0 <= int(found.min()) <= int(found.max()) < 5


def test_known_labels_keep_their_order(network, observe, images) -> None:
    seen = observe(network(), images(3), torch.tensor([4, 0, 2]))
    known = infer_labels("it", seen, "known")
    assert known.tolist() == [4, 0, 2]
    known.zero_()
    assert seen.labels.tolist() == [4, 0, 2]


def test_what_cannot_be_inferred_is_refused(network, observe, images) -> None:
    many = observe(network(), images(6), torch.tensor([0, 1, 2, 3, 4, 0]), labels=None)
    with pytest.raises(ValueError, match=r"it\(labels=.known.\) needs observations that have their labels"):
        infer_labels("it", many, "known")
    with pytest.raises(ValueError, match="reads the label of one sample: num_samples = 6"):
        infer_labels("it", many, "idlg")
    with pytest.raises(ValueError, match="labels that differ: num_samples = 6, num_classes = 5"):
        infer_labels("it", many, "gradinversion")
    with pytest.raises(ValueError, match="it needs labels out of known, idlg, gradinversion, counts: labels = guess"):
        infer_labels("it", many, "guess")
    blunt = nn.Sequential(nn.Flatten(), nn.Linear(72, 5, bias=False)).to(torch.float64)
    with pytest.raises(ValueError, match="reads the bias of the last layer, and this one has none"):
        infer_labels("it", observe(blunt, images(6), torch.tensor([0, 1, 2, 3, 4, 0])), "counts")
    headless = nn.Sequential(nn.Conv2d(2, 5, 6), nn.Flatten()).to(torch.float64)
    with pytest.raises(ValueError, match="last fully connected layer with 5 outputs, which this model lacks"):
        infer_labels("it", observe(headless, images(1), torch.tensor([0])), "idlg")
