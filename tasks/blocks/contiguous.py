"""Cut the flattened features into runs of neighbours, one for each party.

Source: the division of the NUS-WIDE features in Liu, Xie, Koyejo and Li, "CoPur: Certifiably Robust Collaborative
Inference via Feature Purification", NeurIPS 2022, Section 5.1, with its `sizes`; equal runs where none are given.
"""

from __future__ import annotations

import math

import numpy as np

from thornbed.tasks.blocks import Blocks


def contiguous(sample_shape: tuple[int, ...], num_agents: int, *, sizes: tuple[int, ...] = ()) -> Blocks:
    """Return runs of `sizes` columns, which add up to all of them; without sizes they differ by one, larger ones first.

    Raises ValueError for sizes that are not num_agents positive numbers with that sum, and for more agents than
    columns.
    """
    features = math.prod(sample_shape)
    if not 1 <= num_agents <= features:
        raise ValueError(f"contiguous needs 1 to {features} agents for {features} columns: num_agents = {num_agents}")
    if not sizes:
        return tuple(tuple(run.tolist()) for run in np.array_split(np.arange(features), num_agents))
    if len(sizes) != num_agents or min(sizes) < 1 or sum(sizes) != features:
        raise ValueError(
            f"contiguous needs {num_agents} positive sizes that add up to {features}: sizes = {sizes}, "
            f"which add up to {sum(sizes)}"
        )
    return tuple(tuple(run.tolist()) for run in np.split(np.arange(features), np.cumsum(sizes)[:-1]))
