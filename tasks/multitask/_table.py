"""Reading a table of comma-separated values, in which a column names the node of each row."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from thornbed.tasks.multitask import RawNode, grouped
from thornbed.tasks.sources.table import check_columns, is_missing, labels, numbers, read_table, spelling


def read_nodes(
    path: Path,
    *,
    node: str,
    target: str,
    features: tuple[str, ...] = (),
    positive: str | None = None,
    separator: str = "auto",
    decimal: Literal[".", ","] = ".",
    encoding: str = "utf-8",
) -> tuple[list[RawNode], tuple[str, ...]]:
    """Return the nodes of a table and the names of their features: those given, or all columns but node and target.

    The target is a number, or with `positive` 1 where the cell is that label and -1 elsewhere. Rows are counted as
    lines of the file, from 1. A cell that is missing is NaN, which `prepared` finds. The last three options are those
    of `read_table` and `numbers`. Raises ValueError with the file, and the line where there is one, for columns that
    are not there and cells that are no numbers.
    """
    table = read_table(path, encoding=encoding, separator=separator)
    if node == target:
        raise ValueError(f"a table needs two columns, one for the node and one for the target: both are {node}")
    named = [feature for feature in features if feature in (node, target) or features.count(feature) > 1]
    if named:
        what = "is there twice" if features.count(named[0]) > 1 else "is the node or the target"
        raise ValueError(f"features are other columns, each once: {named[0]} {what}")
    features = features or tuple(column for column in table.columns if column not in (node, target))
    check_columns(path, table, (node, target, *features))
    if table.empty or not features:
        raise ValueError(f"{path} has {len(table)} rows and {len(features)} features, expected at least 1 of each")
    names, answers = labels(path, table[node]), table[target]
    x = np.column_stack([numbers(path, table[feature], decimal=decimal) for feature in features])
    if positive is None:
        y = numbers(path, answers, decimal=decimal)
    else:
        there = ~is_missing(answers)
        spelt, wanted = labels(path, answers[there]), spelling(positive)
        if not (spelt == wanted).any():
            shown = ", ".join(map(repr, spelt.unique()[:5]))
            raise ValueError(f"{path}: no {target} is {positive!r}; there are {shown}")
        y = np.full(len(table), np.nan)
        y[there] = np.where(spelt == wanted, 1.0, -1.0)
    return grouped(names.tolist(), x, y, table.index.to_numpy()), features
