"""Reading any table of comma-separated values whose first line names its columns, in which a cell may be empty."""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

NOTHING = ("", "nan", "na")  # a cell without a value, in small letters
# What pandas lets through where it unpacks a file, which it does by its name; for .zst it may lack a package.
DAMAGED = (zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, ImportError)


def read_table(path: Path) -> pd.DataFrame:
    """Return the cells as texts without the spaces around them, by column and by line of the file, from 2 on.

    Lines without a word are left out; cells that a short line lacks at its end are empty. Raises ValueError with the
    file for what is no table, a row longer than the first line, and columns that have no name or the same one.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file, expected a table of comma-separated values")
    try:
        # Without a header of its own kind, pandas refuses every row that is longer than the first line.
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skip_blank_lines=False, header=None)
    except (ValueError, OSError, EOFError, *DAMAGED) as error:
        raise ValueError(f"{path} cannot be read as a table of comma-separated values: {error}") from error
    table = table.apply(lambda column: column.str.strip())
    table = table.iloc[1:].set_axis(table.iloc[0], axis="columns").set_axis(np.arange(2, len(table) + 1), axis="index")
    table = table[(table != "").any(axis="columns")]
    if table.columns.duplicated().any():
        raise ValueError(f"{path} has two columns called {table.columns[table.columns.duplicated()][0]}")
    if (table.columns == "").any():
        raise ValueError(f"{path} has a column without a name: {_named(table)}")
    return table


def check_columns(path: Path, table: pd.DataFrame, wanted: Sequence[str]) -> None:
    """Raise ValueError with the first column that a table has not, and those that it has."""
    if missing := [column for column in wanted if column not in table.columns]:
        raise ValueError(f"{path} has no column {missing[0]}: it has {_named(table)}")


def numbers(path: Path, column: pd.Series) -> NDArray[np.float64]:
    """Return a column of `read_table` as numbers, NaN where a cell has none; raises ValueError with a word's line."""
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    wrong = np.isnan(values) & ~column.str.lower().isin(NOTHING).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"{path}, line {column.index[row]}: {column.name} is {column.iloc[row]!r}, expected a number")
    return np.asarray(values, dtype=np.float64)


def _named(table: pd.DataFrame) -> str:
    return ", ".join(map(str, table.columns[:30]))
