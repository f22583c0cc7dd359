"""Handing rows to a partitioner of flwr-datasets and taking them back as arrays of indices."""

from __future__ import annotations

import warnings

import numpy as np
from datasets import Dataset
from flwr_datasets.partitioner import Partitioner
from torch import Tensor

LABEL = "label"
ROW = "row"


def check_labels(partition: str, labels: np.ndarray | Tensor, num_partitions: int, rows_each: int = 1) -> np.ndarray:
    """Return the labels as an array (N,).

    Raises ValueError where they are not one integer a row, or where there are fewer rows than `rows_each` for each of
    the partitions.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{partition} takes integer labels (N,): got {labels.dtype} {labels.shape}")
    if num_partitions < 1:
        raise ValueError(f"{partition} needs at least one partition: num_partitions = {num_partitions}")
    if len(labels) < num_partitions * rows_each:
        raise ValueError(
            f"{partition} needs {rows_each} rows for each of {num_partitions} partitions, "
            f"{num_partitions * rows_each} in all: there are {len(labels)}"
        )
    return labels


def divided(partitioner: Partitioner, *, rows: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Return the entries of `rows` (N,) that each partition gets, ascending; `labels` (N,) are those of the rows.

    The data set lives in memory only. Warnings are silenced: those of the partitioners announce another try, which
    ends well or in an exception, and pyarrow's concern its callers.
    """
    partitioner.dataset = Dataset.from_dict({ROW: rows, LABEL: labels})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = [partitioner.load_partition(index) for index in range(partitioner.num_partitions)]
        # [:] takes the column as one array; without it `datasets` hands out a view that is read item by item.
        return [np.sort(part.with_format("numpy")[ROW][:]).astype(np.int64) for part in parts]
