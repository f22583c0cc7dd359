"""Rows sorted by class and cut into shards, of which every client gets a few: most clients see few classes.

Paper: H. B. McMahan, E. Moore, D. Ramage, S. Hampson and B. Agüera y Arcas, "Communication-Efficient Learning of Deep
Networks from Decentralized Data", AISTATS 2017, Section 3 ("Non-IID"); dealt by flwr-datasets' ShardPartitioner.
"""

from __future__ import annotations

import numpy as np
from flwr_datasets.partitioner import ShardPartitioner
from torch import Tensor

from thornbed.tasks.partitions._flwr_datasets import LABEL, check_labels, divided


def shards(
    labels: np.ndarray | Tensor, num_partitions: int, seed: int, *, shards_per_client: int = 2
) -> list[np.ndarray]:
    """Return the ascending row indices of each partition: `shards_per_client` shards, drawn without replacement.

    Shards are consecutive rows in the order of the classes; their sizes differ by one at most. Raises ValueError where
    `shards_per_client` is below 1 or there are fewer rows than shards.
    """
    if shards_per_client < 1:
        raise ValueError(f"shards needs shards_per_client >= 1: shards_per_client = {shards_per_client}")
    labels = check_labels("shards", labels, num_partitions, rows_each=shards_per_client)
    num_shards = num_partitions * shards_per_client
    shard_rows = np.array_split(np.argsort(labels, kind="stable"), num_shards)
    # Given rows, the partitioner drops those left over by shards of equal size; so it deals the numbers of the shards.
    numbers = np.arange(num_shards)
    partitioner = ShardPartitioner(
        num_partitions, partition_by=LABEL, num_shards_per_partition=shards_per_client, seed=seed
    )
    dealt = divided(partitioner, rows=numbers, labels=numbers)
    return [np.sort(np.concatenate([shard_rows[number] for number in hand])) for hand in dealt]
