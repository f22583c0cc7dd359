"""What nodes leave out: by hand, by contract, and what is injected among the first."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import numpy as np
import pytest

import thornbed.defenses.trimming
from thornbed.defenses.reporting import listening
from thornbed.defenses.trimming import all_but_largest
from thornbed.defenses.trimming.distance_trimming import distance_trimming
from thornbed.defenses.trimming.loss_trimming import loss_trimming

NAMES = sorted(module.name for module in pkgutil.iter_modules(thornbed.defenses.trimming.__path__))


def function(name: str):
    return getattr(importlib.import_module(f"thornbed.defenses.trimming.{name}"), name)


def points(n: int = 50, d: int = 4):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(n, d)), rng.normal(size=d)
    return x, x @ w + 0.1 * rng.normal(size=n), w


def test_the_folder_has_both() -> None:
    assert NAMES == ["distance_trimming", "loss_trimming"]


@pytest.mark.parametrize("name", NAMES)
def test_it_says_where_it_is_from_and_has_options_by_keyword(name):
    first, blank, rest = inspect.getdoc(importlib.import_module(f"thornbed.defenses.trimming.{name}")).split("\n", 2)
    assert first.endswith(".")
    assert blank == ""
    assert rest.startswith("Paper: ")
    x, y, w, loss, *options = inspect.signature(function(name)).parameters.values()
    assert (x.name, y.name, w.name, loss.name) == ("x", "y", "w", "loss")
    assert all(option.kind is option.KEYWORD_ONLY and option.default is not option.empty for option in options)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("share", "gone"), [(0.0, 0), (0.1, 5), (0.11, 6), (0.99, 49)])
def test_so_many_go_and_it_is_reported_and_nothing_is_changed(name, share, gone):
    x, y, w = points()
    copies = x.copy(), y.copy(), w.copy()
    with listening() as figures:
        kept = function(name)(x, y, w, "squared", share=share)
    assert (~kept).sum() == gone
    assert figures["trimmed_share"] == pytest.approx(gone / 50)
    assert all(np.array_equal(*pair) for pair in zip((x, y, w), copies))
    order = np.random.default_rng(1).permutation(50)
    assert np.array_equal(function(name)(x[order], y[order], w, "squared", share=share), kept[order])


def test_losses_by_hand():
    x, y, w = np.array([[1.0], [2.0], [3.0], [4.0]]), np.array([1.0, 5.0, 3.0, 4.5]), np.array([1.0])
    assert loss_trimming(x, y, w, "squared", share=0.25).tolist() == [True, False, True, True]
    assert loss_trimming(x, y, w, "squared", share=0.5).tolist() == [True, False, True, False]
    signs = np.array([1.0, -1.0, 1.0, -1.0])
    assert loss_trimming(x, signs, w, "hinge", share=0.25).tolist() == [True, True, True, False]


def test_distances_by_hand():
    """Medians 2 and 0; the second feature rests in half of the points, so that only the first counts: |x - 2|."""
    x = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [2.0, 9.0], [6.0, 0.0]])
    assert distance_trimming(x, np.zeros(5), np.zeros(2), "squared", share=0.2).tolist() == [
        True,
        True,
        True,
        True,
        False,
    ]
    far = np.array([[0.0], [1.0], [2.0], [50.0], [51.0], [52.0], [60.0], [3.0]])
    labels = np.array([-1.0, -1, -1, 1, 1, 1, 1, -1])
    whole = distance_trimming(far, labels, np.zeros(1), "hinge", share=0.25)
    assert (~whole).nonzero()[0].tolist() == [0, 6]  # the middle is 26.5
    apart = distance_trimming(far, labels, np.zeros(1), "hinge", share=0.25, by_class=True)
    assert (~apart).nonzero()[0].tolist() == [6, 7]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_injected_far_and_wrong_goes_first(name):
    x, y, w = points()
    bad = np.full((10, 4), 6.0)
    kept = function(name)(np.concatenate([x, bad]), np.concatenate([y, -bad @ w - 20]), w, "squared", share=1 / 6)
    assert kept.tolist() == [True] * 50 + [False] * 10


def test_one_of_each_group_stays_and_of_equal_ones_the_later_go():
    assert all_but_largest(np.array([1.0]), 0.9).tolist() == [True]
    assert all_but_largest(np.zeros(3), 0.3).tolist() == [True, True, False]
    assert all_but_largest(np.array([1.0, 9, 9]), 0.9, np.array([0.0, 1, 1])).tolist() == [True, True, False]


@pytest.mark.parametrize("name", NAMES)
def test_what_does_not_fit_is_refused_with_the_name(name):
    x, y, w = points()
    for wrong, sentence in (
        ((x, y[:-1], w), r"shapes \(50, 4\), \(49,\), \(4,\)"),
        ((x, y, w[:2]), r"\(2,\)"),
        ((x * np.nan, y, w), "finite points and weights"),
    ):
        with pytest.raises(ValueError, match=f"{name} needs .*{sentence}"):
            function(name)(*wrong, "squared")
    for share in (1.0, -0.1):
        with pytest.raises(ValueError, match=f"{name} needs 0 <= share < 1: share = {share}"):
            function(name)(x, y, w, "squared", share=share)
    with pytest.raises(ValueError, match="loss out of hinge, squared: loss = logistic"):
        loss_trimming(x, y, w, "logistic")
