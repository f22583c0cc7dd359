"""Mean and deviation of every column of a table, and what stands where a value is missing."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TOGETHER = 128  # columns: whole copies of a large table would not fit into memory


def statistics(train: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation (f,) of the finite values of training rows (N, f), N >= 1.

    A column without any has mean 0; a column that is constant, or has none, deviation 1.
    """
    parts = [_statistics(train[:, at : at + TOGETHER]) for at in range(0, train.shape[1], TOGETHER)]
    mean, std = (np.concatenate(each) for each in zip(*parts))
    return mean, std


def filled(x: NDArray[np.floating], mean: NDArray[np.float64]) -> Tensor:
    """Return rows (N, f) as float32, the mean of its column in place of every value that is not finite."""
    return torch.from_numpy(np.where(np.isfinite(x), x, mean).astype(np.float32))


def _statistics(train: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values = train.astype(np.float64)
    seen = np.isfinite(values)
    count = np.maximum(seen.sum(axis=0), 1)
    mean = np.where(seen, values, 0).sum(axis=0) / count
    variance = np.where(seen, (np.where(seen, values, 0) - mean) ** 2, 0).sum(axis=0) / count
    std = np.sqrt(variance)
    std[std <= 1e-9 * np.maximum(np.abs(mean), 1)] = 1.0  # a constant, up to the rounding of its mean
    return mean, std
