"""Any table of comma-separated values with a column for the node and one for the target.

Source: a file of one's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from thornbed.tasks.multitask import Loss, Multitask, Preparation, Scaling, prepared
from thornbed.tasks.multitask._table import read_nodes
from thornbed.tasks.sources.files import existing


def node_table(
    data_dir: Path | None,
    *,
    file: str = "nodes.csv",
    node: str = "node",
    target: str = "target",
    positive: str | None = None,
    features: tuple[str, ...] = (),
    split: int = 0,
    test_share: float = 0.25,
    scaling: Scaling = "zscore",
    intercept: bool = True,
    leave_out: bool = False,
    validation: bool = False,
    pooled: bool = False,
    separator: str = "auto",
    decimal: Literal[".", ","] = ".",
    encoding: str = "utf-8",
) -> Multitask:
    """Return the task of a table in `data_dir` whose first line names its columns.

    `node` and `target` are the names of two columns; `features` those of the others to use, all of them where it is
    empty. With `positive` it is a classification: a target that is this label has label 1, every other one -1. Without,
    the target is a number to predict. `separator`, `decimal` and `encoding` say how the file is written, where it is no
    CSV in UTF-8; see `tasks.sources.table`, which also says what counts as missing. The other options are those of
    `Preparation`. Raises MissingData where there is no such file, ValueError with the line where it is malformed.
    """
    how = Preparation(split, test_share, scaling, intercept, leave_out, validation, pooled)
    where = f"put a table there whose first line names a column {node}, a column {target} and the features"
    path = existing("node_table", data_dir, (file,), where)
    raw, names = read_nodes(
        path,
        node=node,
        target=target,
        features=features,
        positive=positive,
        separator=separator,
        decimal=decimal,
        encoding=encoding,
    )
    loss: Loss = "squared" if positive is None else "hinge"
    return prepared("node_table", str(path), loss, raw, names, how)
