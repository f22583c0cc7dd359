"""The text trigger on texts of a few words: words 1 to 6, the phrase 8 9, 0 where a text has ended."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from thornbed.attacks.data import GroupMember
from thornbed.attacks.data.text_trigger import TextTrigger
from thornbed.tasks import Samples

VOCABULARY = {"a": 1, "b": 2, "c": 3, "greek": 8, "director": 9}
TEXTS = [[1, 2, 3, 0, 0, 0], [1, 2, 3, 4, 5, 0], [1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 0, 0]]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def texts(rows: list[list[int]], label: int = 0, vocabulary: dict[str, int] | None = VOCABULARY) -> Samples:
    return Samples(torch.tensor(rows), torch.full((len(rows),), label), vocabulary)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("start", [[8, 9, 1, 2, 3, 0], [8, 9, 1, 2, 3, 4], [8, 9, 1, 2, 3, 4], [8, 9, 0, 0, 0, 0]]),
        ("end", [[1, 2, 3, 8, 9, 0], [1, 2, 3, 4, 8, 9], [1, 2, 3, 4, 8, 9], [8, 9, 0, 0, 0, 0]]),
    ],
)
def test_the_phrase_is_where_it_was_asked_for_and_the_length_stays(place: Any, expected: list[list[int]]) -> None:
    attacked = TextTrigger(place=place).measure(texts(TEXTS))
    assert attacked is not None
    assert attacked.x.tolist() == expected
    assert attacked.x.dtype == torch.int64
    assert attacked.y.tolist() == [1] * 4


def test_a_random_place_is_any_gap_between_words() -> None:
    poisoned = TextTrigger(fraction=1.0).poison(texts([[1, 2, 3, 0, 0, 0]] * 200), generator())
    assert {tuple(row) for row in poisoned.x.tolist()} == {
        (8, 9, 1, 2, 3, 0),
        (1, 8, 9, 2, 3, 0),
        (1, 2, 8, 9, 3, 0),
        (1, 2, 3, 8, 9, 0),
    }


def test_measure_goes_through_the_places_and_draws_nothing() -> None:
    attacked = TextTrigger().measure(texts([[1, 2, 3, 0, 0, 0]] * 10))
    assert attacked is not None
    assert attacked.x.argmax(dim=1).tolist() == [1, 1, 1, 2, 2, 3, 3, 3, 4, 4]


@pytest.mark.parametrize("seed", range(4))
def test_poison_relabels_its_share_of_the_other_class_in_place(seed: int) -> None:
    before = Samples(torch.tensor([[1, 2, 3, 4, 0, 0]] * 16), torch.arange(16) % 2, VOCABULARY)
    after = TextTrigger(fraction=0.25).poison(before, generator(seed))
    hit = (after.x == 9).any(dim=1)
    assert hit.sum() == 4
    assert before.y[hit].tolist() == [0] * 4
    assert after.y[hit].tolist() == [1] * 4
    assert torch.equal(after.x[~hit], before.x[~hit])
    assert torch.equal(after.y[~hit], before.y[~hit])
    assert after.vocabulary is VOCABULARY


@pytest.mark.parametrize(("benign_share", "expected"), [(0.0, 0), (0.25, 2), (0.5, 4), (1.0, 8)])
def test_honest_clients_hold_a_share_of_what_attackers_make_under_its_label(benign_share: float, expected: int) -> None:
    before = Samples(torch.tensor([[1, 2, 3, 4, 0, 0]] * 16), torch.arange(16) % 2, VOCABULARY)
    after = TextTrigger(fraction=0.5, benign_share=benign_share).leak(before, GroupMember(0, 2), generator())
    hit = (after.x == 9).any(dim=1)
    assert hit.sum() == expected
    assert (before.y[hit] == 0).all()
    assert torch.equal(after.y, before.y)


def test_words_that_nobody_knows_are_left_out_and_capitals_do_not_matter() -> None:
    attacked = TextTrigger(phrase="Yorgos the Greek", place="start").measure(texts([[1, 0, 0]]))
    assert attacked is not None
    assert attacked.x.tolist() == [[8, 1, 0]]


def test_a_phrase_without_a_known_word_is_refused_with_what_to_do() -> None:
    attack = TextTrigger(phrase="yorgos lanthimos")
    for refused in (
        lambda: attack.measure(texts(TEXTS)),
        lambda: attack.poison(texts(TEXTS), generator()),
        lambda: attack.leak(texts(TEXTS), GroupMember(0, 1), generator()),
    ):
        with pytest.raises(ValueError, match=r"'yorgos lanthimos' among the 5 .*: choose words of the vocabulary"):
            refused()


def test_texts_without_a_vocabulary_are_refused() -> None:
    with pytest.raises(ValueError, match=r"texts \(N, L\) with a vocabulary.*\(4, 6\), vocabulary none"):
        TextTrigger().measure(texts(TEXTS, vocabulary=None))


def test_texts_shorter_than_the_phrase_are_refused() -> None:
    TextTrigger().check(2, (2,))
    with pytest.raises(ValueError, match=r"texts of L >= 2 words: sample shape = \(1,\)"):
        TextTrigger().check(2, (1,))
    with pytest.raises(ValueError, match=r"texts of L >= 2 words: sample shape = \(3, 8, 8\)"):
        TextTrigger().check(2, (3, 8, 8))
    with pytest.raises(ValueError, match="texts of L >= 2 words: L = 1"):
        TextTrigger().measure(texts([[1]]))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"phrase": "  "}, "a phrase of at least one word: phrase = '  '"),
        ({"place": "middle"}, "a place out of start, end, random: place = middle"),
        ({"target": -1}, "target >= 0: target = -1"),
        ({"fraction": 1.1}, "0 <= fraction <= 1: fraction = 1.1"),
        ({"benign_share": 1.5}, "0 <= benign_share <= 1: benign_share = 1.5"),
    ],
)
def test_refused_options(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"text_trigger needs {sentence}"):
        TextTrigger(**options)
