"""Rows dealt class by class in turn, so that every client has as equal a share of every class as can be.

Source: the stratified division of data sets, as in R. Kohavi, "A Study of Cross-Validation and Bootstrap for Accuracy
Estimation and Model Selection", IJCAI 1995, Section 2, with clients for folds.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from thornbed.tasks.partitions._flwr_datasets import check_labels


def stratified(labels: np.ndarray | Tensor, num_partitions: int, seed: int) -> list[np.ndarray]:
    """Return the ascending row indices of each partition.

    Both their sizes and the rows of each class in them differ by one at most: where no class has more rows than there
    are partitions, no two samples of a client share a label. Raises ValueError where there are fewer rows than
    partitions.
    """
    labels = check_labels("stratified", labels, num_partitions)
    # Shuffled within each class, then dealt as one pack in the order of the classes.
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    pack = shuffled[np.argsort(labels[shuffled], kind="stable")]
    return [np.sort(pack[first::num_partitions]).astype(np.int64) for first in range(num_partitions)]
