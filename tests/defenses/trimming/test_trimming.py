"""What nodes leave out: by hand, and what is injected before anything else."""

from __future__ import annotations

import numpy as np
import pytest

from thornbed.defenses.reporting import listening
from thornbed.defenses.trimming import all_but_largest
from thornbed.defenses.trimming.distance_trimming import distance_trimming
from thornbed.defenses.trimming.loss_trimming import loss_trimming

both = pytest.mark.parametrize("trimming", [distance_trimming, loss_trimming], ids=lambda each: each.__name__)


def points(n: int = 50, d: int = 4):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(n, d)), rng.normal(size=d)
    return x, x @ w + 0.1 * rng.normal(size=n), w


@both
@pytest.mark.parametrize(("share", "gone"), [(0.0, 0), (0.1, 5), (0.11, 6), (0.99, 49)])
def test_so_many_go_and_it_is_reported(trimming, share, gone):
    with listening() as figures:
        kept = trimming(*points(), "squared", share=share)
    assert (~kept).sum() == gone
    assert figures["trimmed_share"] == pytest.approx(gone / 50)


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


@both
def test_what_is_injected_far_and_wrong_goes_and_nothing_else(trimming):
    x, y, w = points()
    bad = np.full((10, 4), 6.0)
    kept = trimming(np.concatenate([x, bad]), np.concatenate([y, -bad @ w - 20]), w, "squared", share=1 / 6)
    assert kept.tolist() == [True] * 50 + [False] * 10


def test_one_of_each_group_stays_and_of_equal_ones_the_later_go():
    assert all_but_largest(np.array([1.0]), 0.9).tolist() == [True]
    assert all_but_largest(np.zeros(3), 0.3).tolist() == [True, True, False]
    assert all_but_largest(np.array([1.0, 9, 9]), 0.9, np.array([0.0, 1, 1])).tolist() == [True, True, False]


def test_a_loss_that_is_not_there_is_refused():
    x, y, w = points()
    with pytest.raises(ValueError, match="loss out of hinge, squared: loss = logistic"):
        loss_trimming(x, y, w, "logistic")


def test_distances_are_of_each_feature_and_of_each_class():
    """In the second feature the middle is 100, and the deviation ten times that of the first."""
    x = np.array([[0.0, 100.0], [1.0, 110.0], [2.0, 90.0], [3.0, 130.0], [-1.0, 95.0], [1.5, 40.0]])
    y, w = np.ones(6), np.zeros(2)
    assert np.flatnonzero(~distance_trimming(x, y, w, "squared", share=0.1)).tolist() == [5]
    # 10, 20 and 30 lie apart from -1, 0, 1: as one class they would go, as one of two the farthest of each goes.
    x = np.array([[-1.0], [0.0], [1.5], [10.0], [20.0], [31.0]])
    y = np.array([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0])
    kept = distance_trimming(x, y, np.zeros(1), "hinge", share=0.3, by_class=True)
    assert np.flatnonzero(~kept).tolist() == [2, 5]


def test_the_hinge_of_a_point_is_one_less_its_margin_also_where_the_label_is_another():
    x = np.array([[2.0], [0.1], [-3.0], [0.5]])
    y = np.array([1.0, 1.0, -1.0, -1.0])
    kept = loss_trimming(x, y, np.ones(1), "hinge", share=0.25)  # margins 2, 0.1, 3 and -0.5
    assert np.flatnonzero(~kept).tolist() == [3]
    kept = loss_trimming(x, y, np.ones(1), "squared", share=0.25)  # errors 1, 0.9, 2 and 1.5
    assert np.flatnonzero(~kept).tolist() == [2]
