"""The pixel trigger on images small enough to write down."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from thornbed.attacks.data.pixel_trigger import PixelTrigger
from thornbed.tasks import Samples


def blank(labels: list[int], channels: int = 1, height: int = 4, width: int = 4) -> Samples:
    return Samples(torch.zeros(len(labels), channels, height, width), torch.tensor(labels))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("top_left", [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]),
        ("top_right", [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]),
        ("bottom_left", [[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]),
        ("bottom_right", [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]),
        ("center", [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]),
    ],
)
def test_the_square_lies_flush_in_its_place(place: Any, expected: list[list[int]]) -> None:
    attacked = PixelTrigger(size=2, place=place).measure(blank([1]))
    assert attacked is not None
    assert attacked.x.tolist() == [[expected]]
    assert attacked.y.tolist() == [0]


def test_height_and_width_are_not_mixed_up_and_every_channel_is_stamped() -> None:
    attacked = PixelTrigger(size=1, value=0.25).measure(blank([1], channels=2, height=2, width=3))
    assert attacked is not None
    assert attacked.x.tolist() == [[[[0, 0, 0], [0, 0, 0.25]]] * 2]


def test_the_center_of_an_oblong_image() -> None:
    attacked = PixelTrigger(size=1, place="center").measure(blank([1], height=3, width=5))
    assert attacked is not None
    assert attacked.x.tolist() == [[[[0, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]]]


def test_the_rest_of_the_image_stays() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4) / 16
    attacked = PixelTrigger(size=3, value=0.0).measure(Samples(x, torch.tensor([5])))
    assert attacked is not None
    assert (attacked.x * 16).tolist() == [[[[0, 1, 2, 3], [4, 0, 0, 0], [8, 0, 0, 0], [12, 0, 0, 0]]]]


def test_measure_leaves_out_the_target_class_and_keeps_the_order() -> None:
    test = Samples(torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 1, 4, 4) / 10, torch.tensor([2, 0, 1, 2]))
    attacked = PixelTrigger(size=1, target=2).measure(test)
    assert attacked is not None
    assert attacked.x[:, 0, 0, 0].tolist() == pytest.approx([0.1, 0.2])
    assert attacked.y.tolist() == [2, 2]


def test_measure_has_nothing_to_say_where_all_are_of_the_target_class() -> None:
    assert PixelTrigger(target=1).measure(blank([1, 1])) is None


@pytest.mark.parametrize("seed", range(5))
def test_poison_replaces_the_share_it_names_among_the_other_classes(seed: int) -> None:
    labels = [0, 1, 2, 3, 0, 1, 2, 3]
    poisoned = PixelTrigger(size=2, target=3, fraction=0.5).poison(blank(labels), generator(seed))
    stamped = poisoned.x.sum(dim=(1, 2, 3)) == 4
    assert stamped.sum() == 4
    assert (poisoned.x[~stamped] == 0).all()
    assert poisoned.y[stamped].tolist() == [3] * 4
    assert poisoned.y[~stamped].tolist() == [label for label, hit in zip(labels, stamped.tolist()) if not hit]
    # of the six samples of other classes four were hit, and none of the two of the target class
    assert stamped.tolist()[3] is False
    assert stamped.tolist()[7] is False


def test_the_target_class_is_stamped_only_where_the_others_do_not_suffice() -> None:
    poisoned = PixelTrigger(size=1, target=1, fraction=0.75).poison(blank([1, 0, 1, 1]), generator())
    stamped = poisoned.x.sum(dim=(1, 2, 3)) == 1
    assert stamped.sum() == 3
    assert stamped[1]
    assert poisoned.y.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, 0), (0.3125, 20), (1.0, 64)])
def test_the_default_share_is_twenty_of_sixty_four(fraction: float, expected: int) -> None:
    assert PixelTrigger().fraction == 0.3125
    poisoned = PixelTrigger(fraction=fraction).poison(blank([1] * 64), generator())
    assert (poisoned.y == 0).sum() == expected


@pytest.mark.parametrize(("size", "pixels"), [(3, 9), (6, 36), (12, 144)])
def test_a_trigger_twice_and_four_times_as_large(size: int, pixels: int) -> None:
    attacked = PixelTrigger(size=size).measure(blank([1], channels=3, height=32, width=32))
    assert attacked is not None
    assert attacked.x.sum(dim=(2, 3)).tolist() == [[pixels] * 3]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": 0}, "size >= 1: size = 0"),
        ({"value": 1.5}, "0 <= value <= 1: value = 1.5"),
        ({"value": float("nan")}, "0 <= value <= 1: value = nan"),
        ({"place": "middle"}, "place out of top_left, top_right, bottom_left, bottom_right, center: place = middle"),
        ({"target": -1}, "target >= 0: target = -1"),
        ({"fraction": 1.1}, "0 <= fraction <= 1: fraction = 1.1"),
    ],
)
def test_refused_options(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        PixelTrigger(**options)


def test_a_trigger_as_large_as_the_image_fits_and_a_larger_one_does_not() -> None:
    PixelTrigger(size=2).check(2, (1, 2, 3))
    for refused in (
        lambda: PixelTrigger(size=3).check(2, (1, 2, 3)),
        lambda: PixelTrigger(size=3).poison(blank([1], height=2, width=3), generator()),
        lambda: PixelTrigger(size=3).measure(blank([1], height=2, width=3)),
    ):
        with pytest.raises(ValueError, match="size = 3, image 2 x 3"):
            refused()


def test_a_table_has_no_pixels() -> None:
    with pytest.raises(ValueError, match=r"images of shape \(C, H, W\): sample shape = \(30,\)"):
        PixelTrigger().check(2, (30,))


def test_a_target_out_of_range_is_seen_before_the_run() -> None:
    PixelTrigger(target=9).check(10, (3, 32, 32))
    with pytest.raises(ValueError, match="target = 10, classes = 10"):
        PixelTrigger(target=10).check(10, (3, 32, 32))
