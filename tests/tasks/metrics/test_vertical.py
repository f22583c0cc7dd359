"""Measures of a backdoor in vertical learning, by hand."""

from __future__ import annotations

import math

import torch

from thornbed.tasks.metrics.vertical import gradient_perturbation, inferred_rightly, rows_to_attack, share_taken_for


def test_shares_count_what_is_taken_for_the_label_and_a_nan_for_nothing() -> None:
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [torch.nan, 1.0], [3.0, 0.0]])
    assert share_taken_for(logits, 0) == 0.5
    assert share_taken_for(logits, torch.tensor([0, 1, 0, 1])) == 0.5
    assert math.isnan(share_taken_for(logits[:0], 0))


def test_only_samples_of_other_classes_are_attacked() -> None:
    labels = torch.arange(40) % 4
    rows = rows_to_attack(labels, 1, 12, torch.Generator().manual_seed(0))
    assert len(set(rows.tolist())) == 12
    assert bool((labels[rows] != 1).all())
    assert len(rows_to_attack(labels, 1, 250, torch.Generator())) == 30


def test_what_was_told_does_not_count_as_inferred() -> None:
    labels = torch.tensor([1, 1, 0, 1, 0])
    assert inferred_rightly(torch.tensor([0, 1, 2, 3]), labels, 1, torch.tensor([0, 4])) == (2 / 3, 3)
    share, size = inferred_rightly(torch.tensor([0]), labels, 1, torch.tensor([0]))
    assert math.isnan(share)
    assert size == 0


def test_the_perturbation_is_a_norm() -> None:
    assert gradient_perturbation(torch.tensor([3.0, 1.0]), torch.tensor([0.0, 5.0])) == 5.0
