"""The counts of votes over the seams of blocks and ranges, and zeros of both signs."""

import numpy as np
import pytest

from thornbed.defenses.sign_votes import majority_signs, mean_flipped_below


def test_by_hand():
    matrix = np.array([[1, -2, 0, 3], [4, -0.0, 0, -1], [-5, -6, -0.0, 0]], np.float32)
    signs, magnitudes, lost = majority_signs(matrix)
    assert signs.tobytes() == np.array([1, -1, 0, 0], np.float32).tobytes()  # no zero is negative
    assert magnitudes.tolist() == [6, 5, 11]
    assert lost == 2


@pytest.mark.parametrize("d", [1, 1023, 1024, 1025, 65_536 + 1, 140_000])
def test_every_width_of_a_block(d):
    generator = np.random.default_rng(d)
    matrix = generator.integers(-2, 3, (6, d)).astype(np.float32)
    votes = np.sign(matrix).sum(axis=0)
    signs, magnitudes, lost = majority_signs(matrix)
    np.testing.assert_array_equal(signs, np.sign(votes))
    np.testing.assert_array_equal(magnitudes, np.abs(matrix).sum(axis=1, dtype=np.float64))
    assert lost == np.minimum((matrix > 0).sum(axis=0), (matrix < 0).sum(axis=0)).sum()

    mean, flipped = mean_flipped_below(matrix, np.full(6, 0.25), 3)
    truth = matrix.sum(axis=0, dtype=np.float64) / 6
    np.testing.assert_array_equal(mean, np.where(np.abs(votes) < 3, -truth, truth).astype(np.float32))
    assert flipped == ((np.abs(votes) < 3) & (truth != 0)).sum()
