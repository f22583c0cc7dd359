"""Reading a table of comma-separated values, in which a column names the node of each row."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from thornbed.tasks.multitask import RawNode, grouped
from thornbed.tasks.sources.table import check_columns, numbers, read_table


def read_nodes(
    path: Path, *, node: str, target: str, features: tuple[str, ...] = (), positive: str | None = None
) -> tuple[list[RawNode], tuple[str, ...]]:
    """Return the nodes of a table and the names of their features: those given, or all columns but node and target.

    The target is a number, or with `positive` 1 where the cell is that text and -1 elsewhere. Rows are counted as lines
    of the file, from 1, which is the header. An empty cell is NaN, which `prepared` finds. Raises ValueError with the
    file, and the line where there is one, for columns that are not there and cells that are no numbers.
    """
    table = read_table(path)
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
    lines = table.index.to_numpy()
    names = table[node]
    if (names == "").any():
        raise ValueError(f"{path}, line {lines[(names == '').to_numpy().argmax()]}: {node} is empty")
    answers = table[target]
    if positive is not None and not (answers == positive).any():
        raise ValueError(f"{path}: no {target} is {positive!r}; there are {', '.join(map(repr, answers.unique()[:5]))}")
    x = np.column_stack([numbers(path, table[feature]) for feature in features])
    y = (
        numbers(path, table[target])
        if positive is None
        else np.where(answers == "", np.nan, np.where(answers == positive, 1.0, -1.0))
    )
    return grouped(names.tolist(), x, y, lines), features
