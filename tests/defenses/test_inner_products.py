"""Inner products about a centre: exact by hand, against float64, and where squared distances would not do."""

import numpy as np
import pytest

from thornbed.defenses.distances import squared_distances
from thornbed.defenses.inner_products import inner_products


def slow_products(matrix, centre):
    rows = matrix.astype(np.float64) - centre.astype(np.float64)
    return np.array([[(one * other).sum() for other in rows] for one in rows])


def test_by_hand():
    matrix = np.array([[1, 1], [4, 5], [4, 1], [1, 1], [0, 1]], np.float32)
    products = inner_products(matrix, np.array([1, 1], np.float32))
    truth = [[0, 0, 0, 0, 0], [0, 25, 9, 0, -3], [0, 9, 9, 0, -3], [0, 0, 0, 0, 0], [0, -3, -3, 0, 1]]
    assert products.tolist() == truth


@pytest.mark.parametrize(("n", "d"), [(1, 5), (2, 1), (3, 255), (4, 256), (6, 257), (21, 1000), (3, 140_000)])
def test_against_float64(n, d):
    generator = np.random.default_rng(n * d)
    matrix, centre = (generator.normal(size=shape).astype(np.float32) for shape in ((n, d), (d,)))
    truth = slow_products(matrix, centre)
    lengths = np.sqrt(np.diag(truth))
    assert (np.abs(inner_products(matrix, centre) - truth) <= 1e-14 * np.outer(lengths, lengths)).all()


def test_symmetric_and_permutable_to_the_byte():
    generator = np.random.default_rng(1)
    matrix, centre = (generator.normal(size=shape).astype(np.float32) for shape in ((9, 70_001), (70_001,)))
    products = inner_products(matrix, centre)
    order = generator.permutation(9)
    assert (products == products.T).all()
    assert (inner_products(matrix[order], centre) == products[np.ix_(order, order)]).all()


def test_an_outlier_takes_no_digits_from_the_others():
    """From squared distances (a^2 + b^2 - ab) / 2 the products with a row at 1e20 are wrong by more than their size."""
    generator = np.random.default_rng(2)
    matrix = generator.normal(size=(5, 1000)).astype(np.float32)
    matrix[4] *= 1e20
    centre = np.zeros(1000, np.float32)
    truth = slow_products(matrix, centre)
    np.testing.assert_allclose(inner_products(matrix, centre)[:4, 4], truth[:4, 4], rtol=1e-10)

    squares = np.diag(truth)
    by_distances = (squares[:, None] + squares - squared_distances(matrix)) / 2
    assert (np.abs(by_distances - truth) / np.abs(truth))[:4, 4].max() > 1  # the case is a hard one
