"""Rows dealt at random, so that every client has about the same mix of classes.

Source: H. B. McMahan, E. Moore, D. Ramage, S. Hampson and B. Agüera y Arcas, "Communication-Efficient Learning of Deep
Networks from Decentralized Data", AISTATS 2017, Section 3 ("IID"); divided by flwr-datasets' IidPartitioner.
"""

from __future__ import annotations

import numpy as np
from flwr_datasets.partitioner import IidPartitioner
from torch import Tensor

from thornbed.tasks.partitions._flwr_datasets import check_labels, divided


def iid(labels: np.ndarray | Tensor, num_partitions: int, seed: int) -> list[np.ndarray]:
    """Return the ascending row indices of each partition; the sizes differ by one at most.

    Of `labels` (N,) only the number counts. Raises ValueError where there are fewer rows than partitions.
    """
    labels = check_labels("iid", labels, num_partitions)
    # The partitioner cuts the rows as they lie, one contiguous piece for each partition: they are shuffled before.
    rows = np.random.default_rng(seed).permutation(len(labels))
    return divided(IidPartitioner(num_partitions), rows=rows, labels=labels[rows])
