"""Every class divided in shares drawn from a Dirichlet distribution: the smaller alpha, the less alike the clients.

Paper: M. Yurochkin, M. Agarwal, S. Ghosh, K. Greenewald, N. Hoang and Y. Khazaeni, "Bayesian Nonparametric Federated
Learning of Neural Networks", ICML 2019, Section 4, without the balancing of its code; divided by flwr-datasets'
DirichletPartitioner.
"""

from __future__ import annotations

import math

import numpy as np
from flwr_datasets.partitioner import DirichletPartitioner
from torch import Tensor

from thornbed.tasks.partitions._flwr_datasets import LABEL, check_labels, divided

DRAWS = 11
"""How often the partitioner draws before it gives up: its first try and ten more."""


def dirichlet(
    labels: np.ndarray | Tensor, num_partitions: int, seed: int, *, alpha: float = 0.5, min_size: int = 2
) -> list[np.ndarray]:
    """Return the ascending row indices of each partition.

    `alpha` > 0 is the concentration, the same for all partitions; `min_size` >= 1 the fewest rows a partition may have
    (batch norm is not defined on one). The shares are drawn again until all have them. Raises ValueError for options
    out of range, and where the draws all left a partition too small.
    """
    if not 0 < alpha < math.inf:
        raise ValueError(f"dirichlet needs alpha above 0 and finite: alpha = {alpha}")
    if min_size < 1:
        raise ValueError(f"dirichlet needs min_size >= 1: min_size = {min_size}")
    labels = check_labels("dirichlet", labels, num_partitions, rows_each=min_size)
    partitioner = DirichletPartitioner(
        num_partitions, partition_by=LABEL, alpha=float(alpha), min_partition_size=min_size, seed=seed
    )
    try:
        return divided(partitioner, rows=np.arange(len(labels)), labels=labels)
    except ValueError as error:
        raise ValueError(
            f"dirichlet drew {DRAWS} times and never gave all of {num_partitions} partitions min_size = {min_size} "
            f"of the {len(labels)} rows with alpha = {alpha}: take fewer partitions, more alpha or less min_size"
        ) from error
