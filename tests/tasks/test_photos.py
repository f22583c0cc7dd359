"""Pieces of photographs: as many as counted by hand, where they were cut, in the colours they had."""

import numpy as np
import skimage.data
import torch

from thornbed.tasks.photos import MEAN, STD, photos


def test_counted_by_hand():
    task = photos(None)
    # 512 x 512 shrunk by 4 has 4 x 4 pieces, of which every fourth is for testing
    assert task.train.y.bincount().tolist() == [12, 12, 21, 18, 18, 15, 12, 12, 12, 18]
    assert task.test.y.bincount().tolist() == [4, 4, 7, 6, 6, 5, 4, 4, 4, 6]
    assert task.sample_shape == (3, 32, 32)


def test_a_piece_is_the_mean_of_squares_of_the_photograph():
    task = photos(None)
    first = task.train.x[task.train.y == 0][1]  # the second piece of the first row of the astronaut
    square = skimage.data.astronaut()[:4, 128:132].reshape(16, 3).mean(axis=0)
    assert first[:, 0, 0].tolist() == np.rint(square).astype(int).tolist()
    camera = task.train.x[task.train.y == 1]
    assert torch.equal(camera[:, 0], camera[:, 1])


def test_mean_and_deviation_are_those_of_the_training_images():
    pixels = photos(None).samples("train").x
    torch.testing.assert_close(pixels.mean(dim=(0, 2, 3)), torch.tensor(MEAN), atol=1e-4, rtol=0)
    torch.testing.assert_close(pixels.std(dim=(0, 2, 3)), torch.tensor(STD), atol=1e-4, rtol=0)
