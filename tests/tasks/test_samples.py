"""Samples and tasks themselves: the vocabulary goes where the rows go, and shapes are those of what a model takes."""

from __future__ import annotations

import pytest
import torch

from thornbed.attacks.data.label_flip import LabelFlip
from thornbed.tasks import Samples, Task

VOCABULARY = {"good": 2, "bad": 3}


def texts(vocabulary: dict[str, int] | None = VOCABULARY) -> Samples:
    return Samples(torch.tensor([[2, 0], [3, 1], [2, 3]]), torch.tensor([1, 0, 0]), vocabulary)


def test_rows_keep_the_vocabulary():
    samples = texts()
    assert samples.select(torch.tensor([0, 2])).vocabulary is VOCABULARY
    assert samples.select(torch.tensor([0, 2])).x.tolist() == [[2, 0], [2, 3]]
    assert samples.decoded().vocabulary is VOCABULARY
    assert samples.decoded().x.dtype == torch.int64


def test_joined_samples_share_one_vocabulary():
    for first, second in ((texts(), texts()), (texts(), texts(None)), (texts(None), texts(dict(VOCABULARY)))):
        joined = first.join(second)
        assert joined.vocabulary == VOCABULARY
        assert joined.x.tolist() == [[2, 0], [3, 1], [2, 3]] * 2
    assert texts(None).join(texts(None)).vocabulary is None
    with pytest.raises(ValueError, match="different vocabularies cannot be joined: they have 2 and 1 words"):
        texts().join(texts({"good": 2}))


def test_an_attack_on_labels_keeps_the_vocabulary_for_the_attack_after_it():
    flip = LabelFlip(source=0, target=1)
    poisoned, measured = flip.poison(texts(), torch.Generator()), flip.measure(texts())
    assert poisoned.vocabulary is VOCABULARY
    assert poisoned.y.tolist() == [1, 1, 1]
    assert measured is not None
    assert measured.vocabulary is VOCABULARY


def test_input_shape_is_that_of_vectors_where_there_are_some():
    made = {"name": "made", "modality": "text", "num_classes": 2, "train": texts(), "test": texts()}
    assert Task(**made).input_shape == (2,)
    task = Task(**made, vectors=torch.zeros(4, 7))
    assert (task.sample_shape, task.input_shape) == ((2,), (2, 7))


def test_a_vocabulary_of_any_size_is_not_printed():
    assert "good" not in repr(texts())
