"""Distances and lengths: exact by hand, against differences in float64, and where the Gram trick fails."""

import numpy as np
import pytest

from thornbed.defenses.distances import cosine_distances, cosines_with, row_lengths, squared_distances


def slow_distances(matrix):
    rows = matrix.astype(np.float64)
    return np.array([[((one - other) ** 2).sum() for other in rows] for one in rows])


def test_by_hand():
    matrix = np.array([[0, 0], [3, 4], [3, 0]], np.float32)
    assert squared_distances(matrix).tolist() == [[0, 25, 9], [25, 0, 16], [9, 16, 0]]


@pytest.mark.parametrize(("n", "d"), [(1, 5), (2, 1), (3, 255), (7, 256), (20, 257), (50, 1000), (3, 140_000)])
def test_against_float64(n, d):
    matrix = np.random.default_rng(n * d).normal(size=(n, d)).astype(np.float32)
    np.testing.assert_allclose(squared_distances(matrix), slow_distances(matrix), rtol=1e-12)


@pytest.mark.parametrize("difference", [1e-4, 1e-5])
def test_small_differences_on_large_updates(difference):
    """Regression: in float32 the Gram trick is wrong by 10% at 1e-4 and gives negative distances at 1e-5."""
    generator = np.random.default_rng(0)
    common = generator.normal(size=500_000)
    matrix = (common + difference * generator.normal(size=(4, 500_000))).astype(np.float32)
    truth = slow_distances(matrix)
    np.testing.assert_allclose(squared_distances(matrix), truth, rtol=1e-12)

    squares = (matrix * matrix).sum(axis=1)
    gram = squares[:, None] + squares[None, :] - 2 * matrix @ matrix.T
    others = ~np.eye(4, dtype=bool)
    assert (np.abs(gram - truth) / np.where(others, truth, 1))[others].max() > 0.01  # the case is a hard one


def test_huge_and_tiny_values_neither_overflow_nor_vanish():
    matrix = np.array([[3e38, 0], [-3e38, 0], [0, 1e-30], [0, 0]], np.float32)
    np.testing.assert_allclose(squared_distances(matrix), slow_distances(matrix), rtol=1e-12)
    assert squared_distances(matrix)[2, 3] > 0


def test_symmetric_with_a_zero_diagonal_and_permutable_to_the_byte():
    matrix = np.random.default_rng(1).normal(size=(9, 70_001)).astype(np.float32)
    distances = squared_distances(matrix)
    order = np.random.default_rng(2).permutation(9)
    assert (distances == distances.T).all()
    assert (np.diag(distances) == 0).all()
    assert (squared_distances(matrix[order]) == distances[np.ix_(order, order)]).all()


def test_scaled_rows_are_as_if_multiplied_beforehand():
    matrix = np.random.default_rng(3).normal(size=(5, 700)).astype(np.float32)
    scales = np.array([1.0, 0.5, 3.0, 0.0, 1e-3])
    truth = slow_distances(matrix * scales[:, None])
    np.testing.assert_allclose(squared_distances(matrix, scales), truth, rtol=1e-12)


def test_cosine_distances_by_hand():
    matrix = np.array([[2, 0], [0, 5], [-1, 0], [3, 3], [0, 0]], np.float32)
    half = 1 - 0.5**0.5
    truth = [
        [0, 1, 2, half, 1],
        [1, 0, 1, half, 1],
        [2, 1, 0, 2 - half, 1],
        [half, half, 2 - half, 0, 1],
        [1, 1, 1, 1, 0],
    ]
    np.testing.assert_allclose(cosine_distances(matrix), truth, rtol=1e-14)


@pytest.mark.parametrize("difference", [1e-3, 1e-6])
def test_cosine_distances_of_updates_that_nearly_agree(difference):
    """The truth is taken in extended precision, from differences; in float64 1 - cos has lost its digits at 1e-6."""
    generator = np.random.default_rng(0)
    common = generator.normal(size=50_000)
    matrix = (common * (1 + difference * generator.normal(size=(3, 50_000)))).astype(np.float32)
    rows = matrix.astype(np.longdouble)
    units = rows / np.sqrt((rows**2).sum(axis=1))[:, None]
    truth = np.array([[((one - other) ** 2).sum() / 2 for other in units] for one in units]).astype(np.float64)
    np.testing.assert_allclose(cosine_distances(matrix), truth, rtol=1e-8)


def test_two_rows_of_zeros_are_no_neighbours():
    assert cosine_distances(np.zeros((2, 3), np.float32)).tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("d", [1, 257, 140_000])
def test_row_lengths(d):
    matrix = np.random.default_rng(d).normal(size=(4, d)).astype(np.float32)
    matrix[1] *= 1e30
    matrix[2] = 0
    np.testing.assert_allclose(row_lengths(matrix), np.sqrt((matrix.astype(np.float64) ** 2).sum(axis=1)), rtol=1e-12)


def test_lengths_from_a_centre_by_hand_and_where_differences_are_small():
    matrix = np.array([[3, 4], [0, 0], [6, 8]], np.float32)
    assert row_lengths(matrix, np.array([3, 0], np.float32)).tolist() == [4, 3, 73**0.5]
    generator = np.random.default_rng(0)
    centre = generator.normal(size=140_000).astype(np.float32)
    near = centre + generator.normal(scale=1e-5, size=(3, 140_000)).astype(np.float32)
    truth = np.linalg.norm(near.astype(np.float64) - centre.astype(np.float64), axis=1)
    np.testing.assert_allclose(row_lengths(near, centre), truth, rtol=1e-12)


def test_cosines_with_a_reference_by_hand():
    matrix = np.array([[1, 0], [3, 4], [0, 0], [0, -2], [3e38, 3e38], [1e-30, 1e-30]], np.float32)
    np.testing.assert_allclose(cosines_with(matrix, np.array([0, 2], np.float32)), [0, 0.8, 0, -1, 0.5**0.5, 0.5**0.5])
    assert not cosines_with(matrix, np.zeros(2, np.float32)).any()


@pytest.mark.parametrize(("n", "d"), [(1, 5), (3, 1), (20, 257), (3, 140_000)])
def test_cosines_with_a_reference_against_float64(n, d):
    generator = np.random.default_rng(n * d)
    matrix, reference = (generator.normal(size=shape).astype(np.float32) for shape in ((n, d), (d,)))
    rows, root = matrix.astype(np.float64), reference.astype(np.float64)
    truth = rows @ root / np.linalg.norm(rows, axis=1) / np.linalg.norm(root)
    np.testing.assert_allclose(cosines_with(matrix, reference), truth, rtol=0, atol=1e-13)
