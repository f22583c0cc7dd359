"""Tables of separated values: the one reading of lines, of what is missing, of numbers and of labels.

A cell is missing where it has no word, or one of `MISSING`, in small or capital letters. A number is what pandas reads
as one, and True and False are 1 and 0. A label is a word or a whole number: `1`, `1.0` and `1e0` are one label.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thornbed.tasks.sources.unpacked import unpacked

MISSING = ("", "?", "na", "n/a", "nan", "null", "none")  # a cell without a value, in small letters
TRUTHS = {"true": "1", "false": "0"}
SEPARATORS = ",;\t|"
LONGEST = 40  # digits of a label: a longer number is none that anybody counts with


def read_table(path: Path, *, encoding: str = "utf-8", separator: str = "auto") -> pd.DataFrame:
    """Return the cells as texts without the spaces around them, by column and by line of the file.

    The first line names the columns; before it there may be a line `sep=;`, which names the separator, and lines that
    begin with #, of which the last one names the columns where the line after it holds numbers. `separator` is one
    sign, or "auto": the one out of , ; tab | that the first line has most of. A packed file (gzip, bzip2, xz) is known
    by its content. Lines without a word are left out; cells that a short line lacks at its end are empty.

    Raises ValueError with the file for what is no table, a row longer than the first line, columns that have no name
    or the same one, and texts that are in another encoding.
    """
    if separator != "auto" and len(separator) != 1:
        raise ValueError(f"a table's separator is one sign, such as ';', or auto: separator = {separator!r}")
    lines = _decoded(path, encoding).splitlines(keepends=True)
    first, sign = _first_line(lines)
    sign = separator if separator != "auto" else sign or _most_of(lines[first] if lines else "")
    text = lines[first].lstrip("# ") + "".join(lines[first + 1 :]) if lines else ""
    try:
        # Without a header of its own kind, pandas refuses every row that is longer than the first line.
        table = pd.read_csv(
            io.StringIO(text), sep=sign, dtype=str, keep_default_na=False, skip_blank_lines=False, header=None
        )
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a table, whose values {sign!r} separates: {error}") from error
    table = table.apply(lambda column: column.str.strip())
    numbered = np.arange(first + 2, first + 1 + len(table))
    table = table.iloc[1:].set_axis(table.iloc[0], axis="columns").set_axis(numbered, axis="index")
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


def is_missing(column: pd.Series) -> NDArray[np.bool_]:
    """Return a mask (N,) of the cells of a column of `read_table` that have no value."""
    return column.str.lower().isin(MISSING).to_numpy()


def numbers(path: Path, column: pd.Series, *, decimal: Literal[".", ","] = ".") -> NDArray[np.float64]:
    """Return a column of `read_table` as numbers, NaN where a cell is missing; `decimal` is the sign before a fraction.

    Raises ValueError with the line for a cell that is no number, or one that float32 does not hold: models compute in
    it, and the squares of larger ones have no number at all.
    """
    words = column.str.lower().replace(TRUTHS)
    if decimal == ",":
        words = words.str.replace(",", ".")
    values = pd.to_numeric(words, errors="coerce").to_numpy(dtype=np.float64)
    if (wrong := np.isnan(values) & ~is_missing(column)).any():
        row = int(wrong.argmax())
        hint = "; decimal=',' reads a comma" if decimal == "." and "," in column.iloc[row] else ""
        raise ValueError(
            f"{path}, line {column.index[row]}: {column.name} is {column.iloc[row]!r}, expected a number, or nothing: "
            f"{_missing_words()}{hint}"
        )
    if (large := np.abs(values) > np.finfo(np.float32).max).any():
        row = int(large.argmax())
        raise ValueError(f"{path}, line {column.index[row]}: {column.name} is {column.iloc[row]}, which is no float32")
    return values


def labels(path: Path, column: pd.Series) -> pd.Series:
    """Return a column of `read_table` with every label in its one spelling.

    Raises ValueError with the line for one that is missing, and for a fraction.
    """
    if (empty := is_missing(column)).any():
        row = int(empty.argmax())
        said = f"is {column.iloc[row]!r}, which counts as missing" if column.iloc[row] else "is missing"
        raise ValueError(f"{path}, line {column.index[row]}: {column.name} {said}; so do {_missing_words()}")
    spelt = {word: spelling(word) for word in column.unique()}
    if fractions := [word for word, label in spelt.items() if label is None]:
        line = column.index[int((column == fractions[0]).to_numpy().argmax())]
        raise ValueError(
            f"{path}, line {line}: {column.name} is {fractions[0]}, expected a class, which is an integer or a word"
        )
    return column.map(spelt)


def spelling(word: str) -> str | None:
    """Return the one spelling of a label: 1 for 1.0, True for TRUE, other words as they are; None for a fraction."""
    if word.lower() in TRUTHS:
        return word.capitalize()
    try:
        number = Decimal(word)
    except InvalidOperation:
        return word
    if number.is_nan():
        return word
    if not number.is_finite() or number.adjusted() > LONGEST or number != number.to_integral_value():
        return None
    return str(int(number))


def _decoded(path: Path, encoding: str) -> str:
    content = unpacked(path)
    try:
        return content.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except LookupError:
        raise ValueError(f"there is no encoding {encoding!r}; there are utf-8, latin-1, utf-16, ...") from None
    except UnicodeError as error:
        other = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin-1"
        raise ValueError(f"{path} is no text in {encoding} ({error}); name its encoding='{other}', say") from None


def _first_line(lines: Sequence[str]) -> tuple[int, str]:
    """Return the number, from 0, of the line that names the columns, and the separator where a line names it."""
    first, sign = 0, ""
    while first < len(lines) - 1:
        line = lines[first].strip("\r\n")
        if first == 0 and line.lower().startswith("sep=") and len(line) == 5:
            sign = line[-1]
        elif not line.startswith("#") or _is_header(line, lines[first + 1], sign):
            break
        first += 1
    return first, sign


def _is_header(line: str, following: str, sign: str) -> bool:
    """Tell whether a line that begins with # names columns: the next one has as many cells, and a number in one."""
    sign = sign or _most_of(following)
    cells = following.strip().split(sign)
    return len(line.split(sign)) == len(cells) and any(_is_number(cell) for cell in cells)


def _is_number(cell: str) -> bool:
    try:
        return Decimal(cell.strip().replace(",", ".")).is_finite()
    except InvalidOperation:
        return False


def _most_of(line: str) -> str:
    """Return the separator that a line has most of, outside of quotes."""
    outside = "".join(line.split('"')[::2])
    return max(SEPARATORS, key=outside.count)


def _missing_words() -> str:
    return ", ".join(word or "an empty cell" for word in MISSING)


def _named(table: pd.DataFrame) -> str:
    return ", ".join(map(str, table.columns[:30]))
