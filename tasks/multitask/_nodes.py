"""From the rows of a file to nodes: what is wrong with a node, its split, and the scale that all share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from thornbed.tasks.multitask import Array, Loss, Multitask, Node, Points

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
