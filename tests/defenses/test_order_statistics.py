"""The sorting network, the mask's threshold and the size of the tails, against whole-number arithmetic."""

from itertools import product

import numpy as np
import pytest

from thornbed.defenses.order_statistics import _network, closest_mean, kept_mean, least_agreement, quorum, tail_size


def sort_by_network(rows, n, tail):
    rows = rows.copy()
    for low, high in _network(n, tail):
        rows[[low, high]] = np.sort(rows[[low, high]], axis=0)
    return rows


@pytest.mark.parametrize("n", range(3, 13))
def test_network_sorts_every_column_of_zeros_and_ones(n):
    """The 0-1 principle: a network that sorts all columns of zeros and ones sorts everything."""
    columns = np.array(list(product((0, 1), repeat=n))).T
    for tail in range(1, (n + 1) // 2):
        kept = slice(tail, n - tail)
        np.testing.assert_array_equal(sort_by_network(columns, n, tail)[kept], np.sort(columns, axis=0)[kept])


@pytest.mark.parametrize("n", [13, 20, 31, 32, 33, 64, 100, 127, 200])
def test_network_keeps_the_middle_of_random_columns(n):
    columns = np.random.default_rng(n).integers(0, n, (n, 300))
    for tail in {1, -(-n // 4), (n - 1) // 2}:
        kept = slice(tail, n - tail)
        np.testing.assert_array_equal(sort_by_network(columns, n, tail)[kept], np.sort(columns, axis=0)[kept])


def test_network_leaves_out_what_changes_nothing_kept():
    assert len(_network(20, 9)) < len(_network(20, 5)) < len(_network(20, 1))
    assert len(_network(20, 0)) == 0  # nothing is trimmed, so nothing need be sorted


def test_tail_size_is_the_exact_ceiling_for_every_percentage():
    for n, percent in product(range(1, 201), range(50)):
        tail = -(-percent * n // 100)
        if 2 * tail < n:
            assert tail_size("rule", percent / 100, n) == tail, (n, percent)


@pytest.mark.parametrize(
    ("alpha", "n", "tail"), [(0.1, 30, 3), (0.07, 100, 7), (0.25, 20, 5), (1 / 3, 9, 3), (0.1 + 0.2, 10, 3), (0, 1, 0)]
)
def test_tail_size_by_hand(alpha, n, tail):
    assert tail_size("rule", alpha, n) == tail


def test_least_agreement_is_just_above_for_every_percentage():
    for n, percent in product(range(1, 201), range(100)):
        assert least_agreement("rule", percent / 100, n) == percent * n // 100 + 1, (n, percent)


@pytest.mark.parametrize(
    ("tau", "n", "least"), [(0.2, 20, 5), (0.6, 5, 4), (0.3, 10, 4), (1 / 3, 3, 2), (1 - 2 * 0.35, 10, 4), (0, 8, 1)]
)
def test_least_agreement_by_hand(tau, n, least):
    assert least_agreement("rule", tau, n) == least


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan"), float("inf")])
def test_alpha_that_is_no_share_is_refused(alpha):
    with pytest.raises(ValueError, match=f"rule needs 0 <= alpha < 0.5: n = 4, alpha = {alpha}"):
        tail_size("rule", alpha, 4)


@pytest.mark.parametrize(("alpha", "n"), [(0.5, 4), (0.25, 2), (0.01, 1), (0.41, 5)])
def test_alpha_that_leaves_nothing_is_refused(alpha, n):
    with pytest.raises(ValueError, match=rf"rule needs 2\*ceil\(alpha\*n\) < n: n = {n}, alpha = {alpha}"):
        tail_size("rule", alpha, n)


@pytest.mark.parametrize("tau", [-0.1, 1.0, float("nan")])
def test_tau_out_of_range_is_refused(tau):
    with pytest.raises(ValueError, match=f"rule needs 0 <= tau < 1: n = 4, tau = {tau}"):
        least_agreement("rule", tau, 4)


def test_zeros_of_either_sign_do_not_vote_and_do_not_show_in_the_bytes():
    matrix = np.array([[-0.0, 0.0, -0.0], [0.0, -0.0, -0.0], [0.0, 0.0, -0.0]], np.float32)
    values, masked = kept_mean(matrix, 1, 1)
    assert masked == 3
    assert values.tobytes() == np.zeros(3, np.float32).tobytes()
    assert kept_mean(matrix, 1)[0].tobytes() == values.tobytes()


def test_masked_columns_are_counted_in_every_range():
    matrix = np.ones((3, 200_000), np.float32)
    matrix[0, ::2] = -1.0  # there two agree against one: |sum of signs| = 1
    values, masked = kept_mean(matrix, 0, 2)
    assert masked == 100_000
    np.testing.assert_array_equal(values, np.tile(np.float32([0, 1]), 100_000))


@pytest.mark.parametrize("d", [1, 511, 512, 513, 65_536 + 1])
def test_every_width_of_a_block(d):
    matrix = np.random.default_rng(d).normal(size=(5, d)).astype(np.float32)
    np.testing.assert_array_equal(kept_mean(matrix, 2)[0], np.median(matrix, axis=0))


def test_quorum_is_the_exact_ceiling_for_every_percentage():
    for n, percent in product(range(1, 201), range(101)):
        assert quorum("rule", percent / 100, n) == -(-percent * n // 100), (n, percent)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_quorum_that_is_no_share_is_refused(threshold):
    with pytest.raises(ValueError, match=f"rule needs 0 <= threshold <= 1: n = 4, threshold = {threshold}"):
        quorum("rule", threshold, 4)


def test_rows_not_named_are_as_if_they_were_not_there():
    matrix = np.random.default_rng(0).normal(size=(9, 70_000)).astype(np.float32)
    rows = np.array([0, 2, 3, 5, 8])
    values, masked = kept_mean(matrix, 1, 2, rows)
    alone, alone_masked = kept_mean(matrix[rows], 1, 2)
    assert values.tobytes() == alone.tobytes()
    assert masked == alone_masked > 0


def test_closest_mean_by_hand():
    matrix = np.array([[1, 0, 4], [2, 0, 4], [4, 0, 4], [9, 1, 4], [99, 99, 99]], np.float32)
    assert closest_mean(matrix, np.arange(5), 2).tolist() == [3, 0, 4]  # medians 4, 0 and 4
    assert closest_mean(matrix, np.arange(4), 2).tolist() == [3, 0, 4]  # medians 3, 0 and 4
    assert closest_mean(matrix, np.array([3]), 1).tolist() == [9, 1, 4]


@pytest.mark.parametrize("d", [1, 511, 512, 513, 65_536 + 1])
def test_closest_mean_of_all_is_the_mean_and_of_one_the_median(d):
    matrix = np.random.default_rng(d).normal(size=(5, d)).astype(np.float32)
    np.testing.assert_array_equal(closest_mean(matrix, np.arange(5), 1), np.median(matrix, axis=0))
    mean = np.sort(matrix, axis=0).mean(axis=0, dtype=np.float64).astype(np.float32)
    np.testing.assert_array_equal(closest_mean(matrix, np.arange(5), 5), mean)
