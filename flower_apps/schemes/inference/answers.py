"""answers.npz: what a run of collaborative inference answered, query by query, and what is certified of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thornbed.tasks.sources.archive import read_archive

ANSWERS = "answers.npz"
Arrays = dict[str, NDArray[Any]]


def write_answers(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write answers.npz, whole or not at all."""
    part = folder / f"{ANSWERS}.part"
    with part.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
    part.replace(folder / ANSWERS)


def read_answers(folder: Path) -> Arrays:
    """Return what answers.npz holds; raises FileNotFoundError, and ValueError for a file that is none."""
    return read_archive(folder / ANSWERS)
