"""What attackers leave for each other, out of the server's sight: a folder that they share.

It works in every engine of one machine, and on machines that mount the folder. What lies there was seen in earlier
rounds, so nobody waits for anybody, and the same seed leaves the same bytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

KEPT = 2  # rounds: the one that is going on, and the one before


class Channel:
    """The models that the server sent, by round, as the attackers saw them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def leave(self, server_round: int, model: Tensor) -> None:
        """Leave the model (d,) of a round, unless an accomplice already has; only the latest rounds are kept."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(server_round)
        if not path.exists():
            part = path.with_suffix(f".{os.getpid()}.part")  # accomplices may write at the same time
            with part.open("wb") as stream:
                np.save(stream, model.numpy(), allow_pickle=False)
            part.replace(path)
        for old in self._rounds()[:-KEPT]:
            self._path(old).unlink(missing_ok=True)

    def before(self, server_round: int) -> tuple[int, Tensor] | None:
        """Return the latest round before this one of which the model is known, and that model (d,)."""
        earlier = [known for known in self._rounds() if known < server_round]
        if not earlier:
            return None
        return earlier[-1], torch.from_numpy(np.load(self._path(earlier[-1]), allow_pickle=False))

    def _rounds(self) -> list[int]:
        names = [re.fullmatch(r"round-(\d+)\.npy", path.name) for path in self.folder.glob("round-*.npy")]
        return sorted(int(name[1]) for name in names if name)

    def _path(self, server_round: int) -> Path:
        return self.folder / f"round-{server_round}.npy"


def found_once(path: Path, find: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the arrays of a file, which whoever comes first finds and leaves there, whole, while the others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.stem}.lock")):
        if not path.exists():
            part = path.with_suffix(".part")
            with part.open("wb") as stream:
                np.savez(stream, allow_pickle=False, **find())
            part.replace(path)
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored}
