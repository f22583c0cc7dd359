"""Linear tasks of many nodes, each with data of its own, one task a file.

Every public module of this folder holds a function of its own name, `NAME(data_dir, *, options) -> Multitask`. One
whose nodes are known without its data has a constant `NUM_NODES`. The types they share are here. Arrays are NumPy's,
float64: the solver of `tasks/mocha` works coordinate by coordinate and stops at a duality gap that float32 cannot
reach.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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


Scaling = Literal["zscore", "minmax", "none"]


@dataclass(frozen=True, eq=False)
class RawNode:
    """One node as its file has it: `x` (n, d) and `y` (n,), which may hold NaN, and `rows` (n,), where each stands."""

    name: str
    x: Array
    y: Array
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class Preparation:
    """How rows become a task; the options of every loader, in one.

    `split` (which of the random splits) and `test_share` in (0, 1) choose the test rows, of every class of every node
    its share. `scaling`: "zscore" or "minmax" over the training rows of all nodes together, which a federation would
    learn from two sums, or two extremes, of d numbers of each node. `intercept`: a last column of ones. `leave_out`:
    nodes with a fault are left out and named in the task; otherwise they are refused. `validation`: the test rows are
    left aside and the same share of the training rows is tested on, which is how to choose lambda1 and lambda2.
    `pooled`: one node has the points of all, so one model is learnt for all: the baseline that nodes are compared with.
    """

    split: int = 0
    test_share: float = 0.25
    scaling: Scaling = "zscore"
    intercept: bool = True
    leave_out: bool = False
    validation: bool = False
    pooled: bool = False

    def __post_init__(self) -> None:
        if not (0 < self.test_share < 1 and 0 <= self.split < 2**32):
            raise ValueError(
                "a multitask task needs 0 < test_share < 1 and 0 <= split < 2**32: "
                f"test_share = {self.test_share}, split = {self.split}"
            )
        if self.scaling not in ("zscore", "minmax", "none"):
            raise ValueError(f'a multitask task has scaling "zscore", "minmax" or "none", not {self.scaling!r}')


def prepared(
    name: str,
    source: str,
    loss: Loss,
    raw: Sequence[RawNode],
    features: Sequence[str],
    how: Preparation,
) -> Multitask:
    """Return the task. `source` is the file, for sentences; raises ValueError with the node and row of a fault."""
    faults = {node.name: fault for node in raw if (fault := _fault(node, loss, features, how.validation))}
    if faults and not how.leave_out:
        first = next(iter(faults.values()))
        more = f" ({len(faults)} nodes have faults; leave_out=True goes on without them)"
        raise ValueError(f"{source}: {first}{more}")
    sound = [node for node in raw if node.name not in faults]
    if not sound:
        raise ValueError(f"{source}: none of its {len(raw)} nodes can be used; {next(iter(faults.values()), '')}")
    random = np.random.RandomState(how.split)  # its stream never changes between versions
    tested = [_test_rows(node.y, loss, how.test_share, random) for node in sound]
    training = np.concatenate([node.x[~rows] for node, rows in zip(sound, tested)])
    shift, scale = _scale(training, how.scaling)
    moves = scale > 0
    faults |= {
        feature: f"feature {feature} is {training[0, column]:g} in all training rows of all nodes, and says nothing"
        for column, feature in enumerate(features)
        if not moves[column]
    }
    names = [feature for feature, moving in zip(features, moves) if moving]

    def part(node: RawNode, rows: NDArray[np.bool_]) -> Points:
        x = ((node.x[rows] - shift) / np.where(moves, scale, 1.0))[:, moves]
        return Points(np.column_stack([x, np.ones(len(x))]) if how.intercept else x, node.y[rows])

    task = Multitask(
        name=name,
        loss=loss,
        nodes=tuple(Node(node.name, part(node, ~rows), part(node, rows)) for node, rows in zip(sound, tested)),
        features=(*names, "intercept") if how.intercept else tuple(names),
        intercept=how.intercept,
        left_out=faults,
    )
    if how.validation:
        task = validation_part(task, share=how.test_share, split=how.split)
    return pooled(task) if how.pooled else task


def validation_part(task: Multitask, *, share: float = 0.25, split: int = 0) -> Multitask:
    """Return the task with its training rows split anew, and its test rows left aside: to choose lambda1 and lambda2.

    The scale stays that of all training rows.
    """
    random = np.random.RandomState(split)
    nodes = []
    for node in task.nodes:
        rows = _test_rows(node.train.y, task.loss, share, random)
        nodes.append(Node(node.name, node.train.select(~rows), node.train.select(rows)))
    return replace(task, nodes=tuple(nodes))


def pooled(task: Multitask) -> Multitask:
    """Return the task with one node that has the points of all nodes, to train on, and is tested on each of them."""
    train, test = (
        Points(np.concatenate([each.x for each in parts]), np.concatenate([each.y for each in parts]))
        for parts in (task.train, task.test)
    )
    return replace(task, nodes=(Node("all", train, test, task.test),))


def _fault(node: RawNode, loss: Loss, features: Sequence[str], validation: bool) -> str:
    """Return what makes a node unusable, as a sentence with its rows, or nothing."""
    where = f"row {node.rows[0]}" if len(node.rows) == 1 else f"rows {node.rows.min()} to {node.rows.max()}"
    missing = ~np.isfinite(np.column_stack([node.x, node.y]))
    if missing.any():
        row, column = np.argwhere(missing)[0]
        what = (*features, "the target")[column]
        value = np.column_stack([node.x, node.y])[row, column]
        return f"node {node.name}, row {node.rows[row]}: {what} is {value:g}, and has to be a finite number"
    classes = np.unique(node.y)
    if loss == "hinge" and len(classes) < 2:
        return f"node {node.name} ({where}) has one class only, {classes[0]:g}, and needs both"
    least = (2 if loss == "squared" else 3) + validation
    if len(node.y) < least:
        return f"node {node.name} ({where}) has {len(node.y)} points, and needs at least {least}"
    if (node.x == node.x[0]).all():
        return f"node {node.name} ({where}) has the same features in all its {len(node.y)} points"
    return ""


def _test_rows(y: Array, loss: Loss, share: float, random: np.random.RandomState) -> NDArray[np.bool_]:
    """Return a mask (n,) of the rows to test on: of every class its share, one at least and never all of a class."""
    order = random.permutation(len(y))
    groups = [order[y[order] == label] for label in np.unique(y)] if loss == "hinge" else [order]
    chosen = np.zeros(len(y), dtype=bool)
    for group in groups:
        chosen[group[: min(len(group) - 1, round(share * len(group)))]] = True
    if not chosen.any():
        chosen[max(groups, key=len)[0]] = True
    return chosen


def _scale(training: Array, scaling: Scaling) -> tuple[Array, Array]:
    """Return what is taken away from each column, and what it is divided by; 0 where a column is constant."""
    if scaling == "none":
        return np.zeros(training.shape[1]), np.ones(training.shape[1])
    constant = (training == training[0]).all(axis=0)
    if scaling == "minmax":
        shift, scale = training.min(axis=0), np.ptp(training, axis=0)
    else:
        shift, scale = training.mean(axis=0), training.std(axis=0)
    return shift, np.where(constant, 0.0, scale)


def grouped(names: Sequence[str], x: Array, y: Array, rows: NDArray[np.int64]) -> list[RawNode]:
    """Return the nodes in the order in which their names first stand in a table (N names, x (N, d), y (N,), rows)."""
    members: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        members.setdefault(name, []).append(row)
    return [RawNode(name, x[mine], y[mine], rows[mine]) for name, mine in members.items()]


def signs(values: Mapping[float, float], y: Array) -> Array:
    """Return the labels (n,) put in place of the values of a file; NaN for a value that is not among them."""
    out = np.full(len(y), math.nan)
    for value, sign in values.items():
        out[y == value] = sign
    return out
