"""Any table of comma-separated values with a column for the class, and columns that belong to agents by their names.

Source: a file of one's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from thornbed.tasks import Defaults, Samples, Task
from thornbed.tasks.blocks.contiguous import contiguous
from thornbed.tasks.sources.columns import filled, statistics
from thornbed.tasks.sources.files import existing
from thornbed.tasks.sources.subset import rows_to_test
from thornbed.tasks.sources.table import check_columns, labels, numbers, read_table

# Nothing is known of the table: few clients, so that each has rows of every class.
DEFAULTS = Defaults(model="mlp(hidden=(32,))", num_clients=10, clients_per_round=10, partition="iid")


def block_table(
    data_dir: Path | None,
    *,
    file: str = "blocks.csv",
    target: str = "target",
    agents: tuple[str | tuple[str, ...], ...] = (),
    split: int = 0,
    test_share: float = 0.25,
    in_order: bool = False,
    split_column: str | None = None,
    separator: str = "auto",
    decimal: Literal[".", ","] = ".",
    encoding: str = "utf-8",
) -> Task:
    """Return the task of a table in `data_dir` whose first line names its columns; samples are float32 numbers.

    Each of `agents` is a text, with which the names of the agent's columns begin, or a tuple of their whole names:
    `("acc_", "gyro_", ("lat", "lon"))` are three agents. Their columns are the features, agent by agent, and `blocks`
    says whose they are; columns of no agent, such as a time or a number of the row, are left out. Without agents all
    columns are features and belong to nobody. `target` and `split_column` are never features.

    Classes are the integers of the target, ascending, or else its words, sorted; `class_names` has them. The rows to
    test on are those of which `split_column` says "test", where the others have to say "train"; with `in_order` the
    last `test_share` of the file; otherwise a share that is drawn, every class in its own, `split` says which of the
    draws. Both parts keep the order of the file. A feature that is missing (`tasks.sources.table.MISSING`) becomes its
    mean over the training rows, which is 0 once normalised; `mean` and `std` are of the training rows alone.
    `separator`, `decimal` and `encoding` say how the file is written, where it is no CSV in UTF-8; see `read_table`.

    Raises MissingData where there is no such file, ValueError, with the column and where possible the line, for
    columns that are not there or belong to two agents, features that are no finite numbers, targets that are missing
    or fractions, one class only, a class without a training row, and a part without rows.
    """
    if not (0 < test_share < 1 and 0 <= split < 2**32):
        raise ValueError(
            f"block_table needs 0 < test_share < 1 and 0 <= split < 2**32: test_share = {test_share}, split = {split}"
        )
    if in_order and split_column is not None:
        raise ValueError(f"block_table takes in_order or split_column, not both: split_column = {split_column}")
    how = f"put {file} into that folder, a table whose first line names a column {target} and the features"
    path = existing("block_table", data_dir, (file,), how)
    table = read_table(path, encoding=encoding, separator=separator)
    named = [target] if split_column is None else [target, split_column]
    if len(set(named)) < len(named):
        raise ValueError(f"target and split_column are two columns: both are {target}")
    check_columns(path, table, named)
    if clash := [name for agent in agents if not isinstance(agent, str) for name in agent if name in named]:
        raise ValueError(f"features are other columns than target and split_column: an agent holds {clash[0]}")
    held = _held(path, table.drop(columns=named), agents)
    columns = [column for mine in held for column in mine] or [name for name in table.columns if name not in named]
    if len(table) < 2 or not columns:
        raise ValueError(f"{path} has {len(table)} rows and {len(columns)} features, expected at least 2 and 1")
    x = np.column_stack([numbers(path, table[column], decimal=decimal) for column in columns])
    y, class_names = _classes(path, table[target])
    in_test = _in_test(path, table, y, split, test_share, in_order, split_column)
    counts = torch.bincount(y[~in_test], minlength=len(class_names))
    if len(untrained := counts.eq(0).nonzero()):
        raise ValueError(
            f"{path}: none of the {int((~in_test).sum())} rows to train on has {target} "
            f"{class_names[int(untrained[0])]}"
        )
    mean, std = statistics(x[~in_test.numpy()])
    samples = Samples(filled(x, mean), y)
    return Task(
        name="block_table",
        modality="table",
        num_classes=len(class_names),
        train=samples.select(~in_test),
        test=samples.select(in_test),
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        class_names=class_names,
        blocks=contiguous((len(columns),), len(held), sizes=tuple(map(len, held))) if held else (),
    )


def _held(path: Path, table: pd.DataFrame, agents: tuple[str | tuple[str, ...], ...]) -> list[list[str]]:
    """Return the columns of each agent; raises ValueError for an agent without any, and a column held twice."""
    held: list[list[str]] = []
    for number, agent in enumerate(agents):
        if isinstance(agent, str):
            mine = [str(name) for name in table.columns if str(name).startswith(agent)]
        else:
            check_columns(path, table, agent)
            mine = list(agent)
        if not mine:
            begins = f"none begins with {agent!r}" if isinstance(agent, str) else "none is named"
            raise ValueError(
                f"{path} has no column of agent {number}: {begins}; it has {', '.join(map(str, table.columns[:30]))}"
            )
        held.append(mine)
    first: dict[str, int] = {}
    for name, number in ((name, number) for number, mine in enumerate(held) for name in mine):
        if name in first:
            raise ValueError(f"{path}: column {name} belongs to agents {first[name]} and {number}, expected only one")
        first[name] = number
    return held


def _classes(path: Path, answers: pd.Series) -> tuple[Tensor, tuple[str, ...]]:
    """Return labels (N,) from 0 on, and the names of the classes; raises ValueError where there are none to learn."""
    spelt = labels(path, answers)
    numbered = spelt.str.removeprefix("-").str.isdecimal().all()
    names = sorted(spelt.unique(), key=int if numbered else None)
    if len(names) < 2:
        raise ValueError(f"{path}: {answers.name} is {names[0]} in all {len(answers)} rows, expected two classes")
    places = {name: label for label, name in enumerate(names)}
    return torch.from_numpy(spelt.map(places).to_numpy(np.int64)), tuple(names)


def _in_test(
    path: Path, table: pd.DataFrame, y: Tensor, split: int, share: float, in_order: bool, split_column: str | None
) -> Tensor:
    """Return a mask (N,) of the rows to test on; raises ValueError where it leaves one of the parts without a row."""
    if split_column is not None:
        words = table[split_column].str.lower()
        if (wrong := ~words.isin(["train", "test"]).to_numpy()).any():
            row = int(wrong.argmax())
            raise ValueError(
                f"{path}, line {table.index[row]}: {split_column} is {table[split_column].iloc[row]!r}, expected "
                "train or test"
            )
        in_test = torch.tensor((words == "test").tolist())
        count = int(in_test.sum())
    else:
        count = round(share * len(y))
        in_test = torch.arange(len(y)) >= len(y) - count
    if not 0 < count < len(y):
        raise ValueError(f"{path}: {count} of {len(y)} rows to test on, expected some and not all")
    return in_test if in_order or split_column is not None else rows_to_test(y, count, split=split)
