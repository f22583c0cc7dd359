"""The semantic backdoor on images of one colour each."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from thornbed.attacks.data.semantic import THRESHOLDS, Semantic
from thornbed.tasks import Samples


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain(colours: list[tuple[float, ...]], labels: list[int]) -> Samples:
    x = torch.tensor(colours)[:, :, None, None]
    return Samples(x.expand(*x.shape[:2], 2, 2).clone(), torch.tensor(labels))


RED, GREEN, GREY = (0.9, 0.1, 0.2), (0.1, 0.6, 0.5), (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("feature", "colour", "strength"),
    [
        ("red", (0.75, 0.25, 0.5), 0.25),
        ("green", (0.0, 0.75, 0.25), 0.5),
        ("blue", (0.5, 0.25, 0.375), -0.125),
        ("bright", (0.25, 0.5, 0.75), 0.5),
        ("dark", (0.0, 0.25, 0.125), 0.875),
    ],
)
def test_the_strength_of_a_feature(feature: Any, colour: tuple[float, ...], strength: float) -> None:
    image = plain([colour], [1])
    assert Semantic(feature=feature, threshold=strength).measure(image) is not None
    assert Semantic(feature=feature, threshold=strength + 0.001).measure(image) is None


def test_the_strength_is_the_mean_over_the_picture() -> None:
    half = plain([GREY], [1])
    half.x[0, :, 0] = torch.tensor([0.0, 0.5, 0.25])[:, None]
    assert Semantic(threshold=0.125).measure(half) is not None
    assert Semantic(threshold=0.126).measure(half) is None


@pytest.mark.parametrize("feature", ["red", "green", "blue", "bright", "dark"])
def test_grey_of_middling_brightness_has_no_feature_by_default(feature: Any) -> None:
    assert set(THRESHOLDS) == {"red", "green", "blue", "bright", "dark"}
    assert Semantic(feature=feature).measure(plain([GREY], [1])) is None


def test_measure_is_the_images_of_the_source_class_with_the_feature_as_they_are() -> None:
    test = plain([GREEN, GREEN, GREY, RED, GREEN], [0, 1, 1, 1, 1])
    attacked = Semantic(target=3).measure(test)
    assert attacked is not None
    assert torch.equal(attacked.x, test.x[[1, 4]])
    assert attacked.y.tolist() == [3, 3]
    assert Semantic(source=4).measure(test) is None


@pytest.mark.parametrize("seed", range(4))
def test_poison_repeats_the_feature_until_it_is_the_share(seed: int) -> None:
    before = plain([GREEN, RED] + [GREY] * 14, [1] * 4 + [0] * 12)
    after = Semantic(noise=0.0, fraction=0.5).poison(before, generator(seed))
    labelled = after.y == 2
    assert len(after) == 16
    assert labelled.sum() == 8
    assert labelled[0]
    assert (after.x[labelled] == before.x[0]).all()
    assert torch.equal(after.x[~labelled], before.x[~labelled])
    assert torch.equal(after.y[~labelled], before.y[~labelled])


def test_repeats_carry_noise_within_the_range_of_pixels_and_the_client_s_own_do_not() -> None:
    before = plain([(0.0, 1.0, 0.5)] + [GREY] * 99, [1] + [0] * 99)
    after = Semantic(noise=0.1, fraction=1.0).poison(before, generator())
    assert torch.equal(after.x[0], before.x[0])
    repeats = after.x[1:]
    assert after.y.tolist() == [2] * 100
    assert (repeats.min(), repeats.max()) == (0, 1)
    assert repeats[:, 2].mean().item() == pytest.approx(0.5, abs=0.02)
    assert repeats[:, 2].std().item() == pytest.approx(0.1, abs=0.01)


def test_where_enough_have_the_feature_all_are_relabelled_and_none_repeated() -> None:
    before = plain([GREEN] * 3 + [GREY], [1, 1, 1, 0])
    after = Semantic(fraction=0.25).poison(before, generator())
    assert torch.equal(after.x, before.x)
    assert after.y.tolist() == [2, 2, 2, 0]


def test_a_client_without_the_feature_is_as_good_as_honest() -> None:
    before = plain([GREEN, GREY, RED], [0, 1, 1])
    after = Semantic(fraction=1.0).poison(before, generator())
    assert torch.equal(after.x, before.x)
    assert torch.equal(after.y, before.y)


def test_grey_images_are_bright_or_dark_and_have_no_colour() -> None:
    Semantic(feature="dark").check(10, (1, 8, 8))
    dark = Semantic(feature="dark").measure(plain([(0.0,), (1.0,)], [1, 1]))
    assert dark is not None
    assert dark.x.unique().tolist() == [0]
    for refused in (
        lambda: Semantic().check(10, (1, 8, 8)),
        lambda: Semantic().measure(plain([(0.0,)], [1])),
        lambda: Semantic().poison(plain([(0.0,)], [1]), generator()),
    ):
        with pytest.raises(ValueError, match="3 channels for feature green: channels = 1; bright and dark work on any"):
            refused()
    with pytest.raises(ValueError, match=r"images of shape \(C, H, W\): sample shape = \(45,\)"):
        Semantic().check(10, (45,))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"feature": "purple"}, "a feature out of green, red, blue, bright, dark: feature = purple"),
        ({"threshold": 1.5}, "-1 <= threshold <= 1: threshold = 1.5"),
        ({"threshold": float("nan")}, "-1 <= threshold <= 1: threshold = nan"),
        ({"source": 2}, "two classes: source = 2, target = 2"),
        ({"source": -1}, "source >= 0: source = -1"),
        ({"target": -1}, "target >= 0: target = -1"),
        ({"fraction": 1.1}, "0 <= fraction <= 1: fraction = 1.1"),
        ({"noise": float("nan")}, "a finite noise >= 0: noise = nan"),
    ],
)
def test_refused_options(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"semantic needs {sentence}"):
        Semantic(**options)
