"""Reading a table of comma-separated values, in which a column names the node of each row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tasks.multitask import Array
from tasks.multitask._nodes import RawNode, grouped
from tasks.sources import MissingData


def existing(task: str, data_dir: Path | None, files: tuple[str, ...], how: str) -> Path:
    """Return the first of the files that the folder has; raises MissingData with `how` to get them without any."""
    if data_dir is not None:
        for file in files:
            if (data_dir / file).exists():
                return data_dir / file
    wanted = " or ".join(files)
    why = "no folder was named with --data-dir" if data_dir is None else f"{data_dir} has no {wanted}"
    raise MissingData(f"{task} needs its data, but {why}: {how}")


def read_nodes(
    path: Path, *, node: str, target: str, features: tuple[str, ...] = (), positive: str | None = None
) -> tuple[list[RawNode], tuple[str, ...]]:
    """Return the nodes of a table and the names of their features: those given, or all columns but node and target.

    The target is a number, or with `positive` 1 where the cell is that text and -1 elsewhere. Rows are counted as lines
    of the file, from 1, which is the header. An empty cell is NaN, which `prepared` finds. Raises ValueError with the
    file, and the line where there is one, for columns that are not there and cells that are no numbers.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file, expected a table of comma-separated values")
    try:
        # Without a header of its own kind, pandas refuses every row that is longer than the first line.
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skip_blank_lines=False, header=None)
    except (ValueError, UnicodeDecodeError, pd.errors.ParserError) as error:
        raise ValueError(f"{path} cannot be read as a table of comma-separated values: {error}") from error
    table = (
        table.iloc[1:]
        .set_axis(table.iloc[0].str.strip(), axis="columns")
        .set_axis(np.arange(2, len(table) + 1), axis="index")
    )
    table = table[(table != "").any(axis="columns")]  # a line without a word is no row
    if table.columns.duplicated().any():
        raise ValueError(f"{path} has two columns called {table.columns[table.columns.duplicated()][0]}")
    if (table.columns == "").any():
        raise ValueError(f"{path} has a column without a name: {', '.join(map(str, table.columns[:30]))}")
    if node == target:
        raise ValueError(f"a table needs two columns, one for the node and one for the target: both are {node}")
    named = [feature for feature in features if feature in (node, target) or features.count(feature) > 1]
    if named:
        what = "is there twice" if features.count(named[0]) > 1 else "is the node or the target"
        raise ValueError(f"features are other columns, each once: {named[0]} {what}")
    features = features or tuple(column for column in table.columns if column not in (node, target))
    if missing := [column for column in (node, target, *features) if column not in table.columns]:
        raise ValueError(f"{path} has no column {missing[0]}: it has {', '.join(map(str, table.columns[:30]))}")
    if table.empty or not features:
        raise ValueError(f"{path} has {len(table)} rows and {len(features)} features, expected at least 1 of each")
    lines = table.index.to_numpy()
    names = table[node].str.strip()
    if (names == "").any():
        raise ValueError(f"{path}, line {lines[(names == '').to_numpy().argmax()]}: {node} is empty")
    answers = table[target].str.strip()
    if positive is not None and not (answers == positive).any():
        raise ValueError(f"{path}: no {target} is {positive!r}; there are {', '.join(map(repr, answers.unique()[:5]))}")
    x = np.column_stack([_numbers(path, table[feature], lines) for feature in features])
    y = (
        _numbers(path, table[target], lines)
        if positive is None
        else np.where(answers == "", np.nan, np.where(answers == positive, 1.0, -1.0))
    )
    return grouped(names.tolist(), x, y, lines), features


def _numbers(path: Path, column: pd.Series, lines: np.ndarray) -> Array:
    texts = column.str.strip()
    numbers = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64)
    wrong = np.isnan(numbers) & ~texts.str.lower().isin(["", "nan", "na"]).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"{path}, line {lines[row]}: {column.name} is {texts.iloc[row]!r}, expected a number")
    return np.asarray(numbers, dtype=np.float64)
