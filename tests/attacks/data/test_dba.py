"""The distributed backdoor on pictures and tables small enough to write down."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from thornbed.attacks.data import GroupMember
from thornbed.attacks.data.dba import Dba
from thornbed.tasks import Samples

SMALL = {"size": 2, "gap": 1}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blank(labels: list[int], height: int = 4, width: int = 6) -> Samples:
    return Samples(torch.zeros(len(labels), 1, height, width), torch.tensor(labels))


def drawn(picture: str) -> list[list[float]]:
    return [[float(pixel == "#") for pixel in row] for row in picture.split()]


def stamp(attack: Dba, samples: Samples) -> Tensor:
    """Return the first sample as a member poisons it when it poisons all."""
    return attack.poison(samples, generator()).x[0]


@pytest.mark.parametrize(
    ("rank", "picture"),
    [
        (0, "##.... ...... ...... ......"),
        (1, "...##. ...... ...... ......"),
        (2, "...... ...... ##.... ......"),
        (3, "...... ...... ...##. ......"),
        (4, "##.... ...... ...... ......"),
        (7, "...... ...... ...##. ......"),
    ],
)
def test_each_member_stamps_its_own_bar(rank: int, picture: str) -> None:
    attack = Dba(**SMALL, fraction=1.0).for_member(GroupMember(rank, 8))
    assert stamp(attack, blank([1])).tolist() == [drawn(picture)]


def test_measure_stamps_the_whole_trigger_whatever_the_part() -> None:
    whole = drawn("##.##. ...... ##.##. ......")
    for attack in (Dba(**SMALL), Dba(**SMALL, part=2), Dba(**SMALL).for_member(GroupMember(1, 4))):
        attacked = attack.measure(blank([3, 0]))
        assert attacked is not None
        assert attacked.x.tolist() == [[whole]]
        assert attacked.y.tolist() == [0]


def test_without_a_part_it_is_the_centralised_attack() -> None:
    assert stamp(Dba(**SMALL, fraction=1.0), blank([1])).tolist() == [drawn("##.##. ...... ##.##. ......")]


def test_a_part_that_is_named_stays() -> None:
    attack = Dba(**SMALL, part=2, fraction=1.0)
    assert attack.for_member(GroupMember(1, 4)) == attack
    assert stamp(attack, blank([1])).tolist() == [drawn("...... ...... ##.... ......")]


def test_location_moves_all_bars_and_value_is_their_brightness() -> None:
    attacked = Dba(size=1, gap=0, location=1, value=0.5, num_parts=3).measure(blank([1], height=3, width=4))
    assert attacked is not None
    assert (attacked.x * 2).tolist() == [[drawn(".... .##. .#..")]]


def test_the_defaults_are_the_papers_for_cifar10() -> None:
    whole = Dba().measure(Samples(torch.zeros(1, 3, 32, 32), torch.tensor([1])))
    assert whole is not None
    bars = [(0, column) for column in (*range(6), *range(9, 15))] + [
        (4, column) for column in (*range(6), *range(9, 15))
    ]
    for channel in whole.x[0]:
        assert [tuple(pixel) for pixel in channel.nonzero().tolist()] == bars
    assert Dba().fraction == 5 / 64


@pytest.mark.parametrize("part", [None, 0, 3])
def test_poison_replaces_its_share_among_the_other_classes(part: int | None) -> None:
    before = blank([0, 1, 2, 3] * 4)
    after = Dba(**SMALL, part=part, fraction=0.25).poison(before, generator(4))
    hit = after.x.sum(dim=(1, 2, 3)) > 0
    assert hit.sum() == 4
    assert (before.y[hit] != 0).all()
    assert after.y[hit].tolist() == [0] * 4
    assert torch.equal(after.y[~hit], before.y[~hit])


def table(labels: list[int], features: int = 6) -> Samples:
    return Samples(torch.zeros(len(labels), features), torch.tensor(labels))


@pytest.mark.parametrize(("part", "expected"), [(0, [5, 5, 0, 0, 0, 0]), (1, [0, 0, 0, 5, 0, 0])])
def test_a_part_of_a_table_is_some_of_the_features(part: int, expected: list[int]) -> None:
    attack = Dba(features=(1, 3, 0), num_parts=2, feature_value=5.0, part=part, fraction=1.0)
    assert stamp(attack, table([1])).tolist() == expected
    attacked = attack.measure(table([1, 0]))
    assert attacked is not None
    assert attacked.x.tolist() == [[5, 5, 0, 5, 0, 0]]
    assert attacked.y.tolist() == [0]


def test_pictures_too_small_for_the_trigger_are_refused_by_every_verb() -> None:
    Dba().check(10, (3, 5, 15))
    digits = blank([1], height=8, width=8)
    for refused in (
        lambda: Dba().check(10, (1, 8, 8)),
        lambda: Dba(part=0).poison(digits, generator()),
        lambda: Dba().measure(digits),
    ):
        with pytest.raises(
            ValueError, match="trigger 5 x 15 pixels, image 8 x 8; choose a smaller size, gap or location"
        ):
            refused()
    with pytest.raises(ValueError, match="image 4 x 15"):
        Dba().check(10, (3, 4, 15))
    Dba(size=2, gap=1).check(10, (1, 8, 8))


def test_tables_without_the_features_or_with_fewer_than_parts_are_refused() -> None:
    Dba().check(2, (41,))
    with pytest.raises(ValueError, match="dba needs features < number of features: feature = 40, features = 40"):
        Dba().check(2, (40,))
    with pytest.raises(ValueError, match=r"num_parts <= number of features: num_parts = 4, features = \(1, 2\)"):
        Dba(features=(1, 2)).check(2, (41,))
    with pytest.raises(ValueError, match=r"images \(C, H, W\) or rows of a table: sample shape = \(4, 4\)"):
        Dba().check(2, (4, 4))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_parts": 0}, "num_parts >= 1: num_parts = 0"),
        ({"part": 4}, "0 <= part < num_parts: part = 4, num_parts = 4"),
        ({"part": -1}, "0 <= part < num_parts: part = -1"),
        ({"size": 0}, "size >= 1: size = 0"),
        ({"gap": -1}, "gap >= 0: gap = -1"),
        ({"location": -1}, "location >= 0: location = -1"),
        ({"value": 1.5}, "0 <= value <= 1: value = 1.5"),
        ({"features": ()}, r"different features >= 0, at least one: features = \(\)"),
        ({"features": (1, 1)}, r"different features >= 0, at least one: features = \(1, 1\)"),
        ({"features": (-1,)}, "different features >= 0"),
        ({"feature_value": float("inf")}, "a finite feature_value: feature_value = inf"),
        ({"target": -1}, "target >= 0: target = -1"),
        ({"fraction": 1.1}, "0 <= fraction <= 1: fraction = 1.1"),
    ],
)
def test_refused_options(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"dba needs {sentence}"):
        Dba(**options)


def test_every_part_needs_an_attacker_unless_one_is_named() -> None:
    Dba().check_members(4)
    with pytest.raises(ValueError, match="dba needs an attacker for every part: num_parts = 4, attackers = 3"):
        Dba().check_members(3)
    Dba(part=2).check_members(1)
