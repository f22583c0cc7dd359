"""Linear tasks of many nodes, each with data of its own, one task a file.

Every public module of this folder holds a function of its own name, `NAME(data_dir, *, options) -> Multitask`. One
whose nodes are known without its data has a constant `NUM_NODES`. The types they share are here. Arrays are NumPy's,
float64: the solver of `tasks/mocha` works coordinate by coordinate and stops at a duality gap that float32 cannot
reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Loss = Literal["hinge", "squared"]
"""max(0, 1 - y w.x) for labels in {-1, 1}, or (w.x - y)^2 for numbers."""


@dataclass(frozen=True, eq=False)
class Points:
    """Points of one node, row by row: `x` (n, d) and `y` (n,), float64, n >= 1; labels -1 and 1, or any numbers.

    Raises ValueError for other shapes or types, and with the row where a value is not finite.
    """

    x: Array
    y: Array

    def __post_init__(self) -> None:
        if self.x.ndim != 2 or self.y.shape != self.x.shape[:1] or not self.x.size:
            raise ValueError(f"points are x (n, d) and y (n,) with n, d >= 1: shapes {self.x.shape} and {self.y.shape}")
        if self.x.dtype != np.float64 or self.y.dtype != np.float64:
            raise ValueError(f"points are float64: x is {self.x.dtype}, y is {self.y.dtype}")
        bad = ~(np.isfinite(self.x).all(axis=1) & np.isfinite(self.y))
        if bad.any():
            raise ValueError(f"points are finite: row {int(bad.argmax())} is not ({int(bad.sum())} such of {len(bad)})")

    def __len__(self) -> int:
        return len(self.y)

    def select(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Points:
        """Return the rows asked for, by index (k,) or by mask (n,), as new points."""
        return Points(self.x[rows], self.y[rows])

    def join(self, other: Points) -> Points:
        """Return these points followed by the others."""
        return Points(np.concatenate([self.x, other.x]), np.concatenate([self.y, other.y]))


@dataclass(frozen=True, eq=False)
class Node:
    """One node: its name in the data, what it trains on, and what it is tested on.

    A node that pools others is tested on each of them by itself, `test` being what they have together: its error is the
    mean of theirs, as that of separate nodes is.
    """

    name: str
    train: Points
    test: Points
    pools: tuple[Points, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Multitask:
    """Nodes that share their features and learn a weight vector each.

    Attributes
    ----------
    name : of the task; it says where data are not the published ones (`har_rebuilt`).
    loss : "hinge" for labels in {-1, 1}, judged by their error rate, or "squared", judged by RMSE.
    nodes : m of them, all with d features, scaled alike.
    features : the d names, in the order of the columns.
    intercept : whether the last column is 1 in every row. It is learned and regularised like the others.
    left_out : by the name of a node or of a feature that was left out, why, as a sentence.

    Raises ValueError where nodes have other widths than there are names, where an intercept is announced and a column
    is not 1, and for labels that the loss does not take.
    """

    name: str
    loss: Loss
    nodes: tuple[Node, ...]
    features: tuple[str, ...]
    intercept: bool
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.nodes:
            raise ValueError(f"{self.name} has 0 nodes, and needs at least 1")
        for node in self.nodes:
            for points in (node.train, node.test):
                if points.x.shape[1] != len(self.features):
                    raise ValueError(
                        f"{self.name}: node {node.name} has {points.x.shape[1]} features, expected {len(self.features)}"
                    )
                if self.intercept and (points.x[:, -1] != 1).any():
                    raise ValueError(f"{self.name}: node {node.name} has an intercept column that is not 1 everywhere")
                if self.loss == "hinge" and (np.abs(points.y) != 1).any():
                    raise ValueError(f"{self.name}: node {node.name} has labels other than -1 and 1")

    @property
    def train(self) -> tuple[Points, ...]:
        """Training points, node by node."""
        return tuple(node.train for node in self.nodes)

    @property
    def test(self) -> tuple[Points, ...]:
        """Test points, node by node."""
        return tuple(node.test for node in self.nodes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the nodes, in their order."""
        return tuple(node.name for node in self.nodes)
