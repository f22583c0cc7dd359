"""Label flipping on six samples."""

from __future__ import annotations

import pytest
import torch

from thornbed.attacks.data.label_flip import LabelFlip
from thornbed.tasks import Samples

SAMPLES = Samples(torch.arange(6.0).reshape(6, 1), torch.tensor([0, 1, 2, 0, 1, 2]))


def test_all_of_the_source_class_and_no_others_are_relabelled() -> None:
    poisoned = LabelFlip(source=2, target=0).poison(SAMPLES, torch.Generator())
    assert poisoned.x.flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert poisoned.y.tolist() == [0, 1, 0, 0, 1, 0]


def test_measure_is_the_source_class_under_the_wrong_label() -> None:
    flipped = LabelFlip(source=2, target=0).measure(SAMPLES)
    assert flipped is not None
    assert flipped.x.flatten().tolist() == [2, 5]
    assert flipped.y.tolist() == [0, 0]


def test_measure_has_nothing_to_say_without_the_source_class() -> None:
    assert LabelFlip(source=3).measure(SAMPLES) is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"source": 1, "target": 1}, "two classes: source = 1, target = 1"),
        ({"source": -1}, "source >= 0: source = -1"),
        ({"target": -2}, "target >= 0: target = -2"),
    ],
)
def test_refused_options(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        LabelFlip(**options)


@pytest.mark.parametrize(
    ("options", "sentence"), [({"source": 2}, "source = 2, classes = 2"), ({"target": 5}, "target = 5, classes = 2")]
)
def test_classes_that_the_task_does_not_have(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        LabelFlip(**options).check(2, (30,))
