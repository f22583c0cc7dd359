"""Sitting against all other activities, from the sensors of a phone: 30 people, a node each, 561 features.

Source: D. Anguita, A. Ghio, L. Oneto, X. Parra and J. Reyes-Ortiz, "A Public Domain Dataset for Human Activity
Recognition Using Smartphones", ESANN 2013; https://archive.ics.uci.edu/dataset/240/human+activity+recognition+using+smartphones.
The published table is read where the folder has it. Otherwise it reads features that were made again from the raw
signals by the published recipe, and the task is then called har_rebuilt: its figures are not those of the table.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from thornbed.tasks import Tuned
from thornbed.tasks.multitask import Array, Multitask, Preparation, Scaling, grouped, prepared
from thornbed.tasks.sources.archive import read_archive
from thornbed.tasks.sources.files import existing

NUM_NODES = 30
# lambdas by clean validation, passes until the duality gap is small: docs/papers/at2fl.md. A search over 561 features
# is slow, so there are fewer.
TUNED = Tuned(
    settings={"mocha": {"local_epochs": 20.0, "rounds": 40}},
    options={"mocha": {"lambda1": 0.1, "lambda2": 0.01}, "at2fl": {"iterations": 20, "balls": 2, "start": "clean"}},
)
TABLE, REBUILT = "UCI HAR Dataset", "uci_har_561_rebuilt.npz"
SITTING = "SITTING"


def har(
    data_dir: Path | None,
    *,
    split: int = 0,
    test_share: float = 0.25,
    scaling: Scaling = "zscore",
    intercept: bool = True,
    leave_out: bool = False,
    validation: bool = False,
    pooled: bool = False,
) -> Multitask:
    """Return the task: label 1 is sitting. Every person is in training and in test; options as in `Preparation`.

    Rows are counted from 1: in the table its training rows and then its test rows, in the rebuilt file its own.
    Raises MissingData where `data_dir` has neither, ValueError where what it has is malformed.
    """
    how = Preparation(split, test_share, scaling, intercept, leave_out, validation, pooled)
    where = (
        f'unpack "{TABLE}" (features.txt, activity_labels.txt, train/, test/) from https://archive.ics.uci.edu/dataset'
        f"/240/human+activity+recognition+using+smartphones into that folder, or put {REBUILT} there, with x (N, 561), "
        "y (N,), subject (N,), activities and feature_names"
    )
    path = existing("har", data_dir, (TABLE, REBUILT), where)
    published = path.name == TABLE
    x, sitting, subjects, features = _published(path) if published else _rebuilt(path)
    people = np.argsort(subjects, kind="stable")
    raw = grouped(
        [str(number) for number in subjects[people]],
        x[people],
        np.where(sitting[people], 1.0, -1.0),
        people + 1,
    )
    return prepared("har" if published else "har_rebuilt", str(path), "hinge", raw, features, how)


Read = tuple[Array, np.ndarray, np.ndarray, tuple[str, ...]]


def _published(folder: Path) -> Read:
    def numbers(name: str) -> Array:
        try:
            return pd.read_csv(folder / name, sep=r"\s+", header=None).to_numpy(dtype=np.float64)
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder / name} cannot be read as columns of numbers: {error}") from error

    try:
        lines = (folder / "activity_labels.txt").read_text(encoding="utf-8").split("\n")
        activities = {name: int(number) for number, name in (line.split() for line in lines if line.strip())}
        names = [
            line.split()[1]
            for line in (folder / "features.txt").read_text(encoding="utf-8").split("\n")
            if line.strip()
        ]
        code = activities[SITTING]
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise ValueError(f"{folder} has no activity_labels.txt and features.txt as published: {error!r}") from error
    parts = [[numbers(f"{part}/{kind}_{part}.txt") for part in ("train", "test")] for kind in ("X", "y", "subject")]
    x, y, subjects = (np.concatenate(part) for part in parts)
    _check(folder, x, y[:, 0], subjects[:, 0], len(names))
    # Several features of the published table have one name, so their columns are numbered.
    return x, y[:, 0] == code, subjects[:, 0].astype(np.int64), tuple(f"{i}_{name}" for i, name in enumerate(names, 1))


def _rebuilt(path: Path) -> Read:
    wanted = ("x", "y", "subject", "activities", "feature_names")
    found = read_archive(path, wanted)
    x, y, subjects, activities, names = (found[key] for key in wanted)
    if SITTING not in activities.tolist():
        raise ValueError(f"{path}: its activities are {activities.tolist()}, and {SITTING} is not among them")
    _check(path, x, y, subjects, len(names))
    features = tuple(f"{i}_{name}" for i, name in enumerate(names.tolist(), 1))
    return x.astype(np.float64), y == activities.tolist().index(SITTING), subjects.astype(np.int64), features


def _check(path: Path, x: np.ndarray, y: np.ndarray, subjects: np.ndarray, width: int) -> None:
    if x.ndim != 2 or x.shape != (len(y), width) or len(subjects) != len(y):
        raise ValueError(
            f"{path}: features {x.shape}, {len(y)} activities, {len(subjects)} subjects, {width} names of features; "
            "expected one of each for every row, and a name for every column"
        )
