"""Letters that attackers leave for each other in a folder that they share, out of the server's sight.

A letter says in which step of which round it was left, and is read in later ones only. So nobody waits for anybody, and
what an attacker finds does not depend on who was faster: every engine gives the same run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from thornbed.protocol.tensor_files import load_tensors, save_tensors

Moment = tuple[int, int]
"""A round and a step of it; step -1 is before the first."""
LEFT = "left"


class Mailbox:
    """The letters in a folder: tensors by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def leave(self, name: str, letter: Mapping[str, Tensor], moment: Moment) -> None:
        """Leave a letter in place of an earlier one of that name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        save_tensors(self._path(name), letter, {LEFT: f"{moment[0]} {moment[1]}"})

    def read(self, name: str, before: Moment | None = None) -> dict[str, Tensor] | None:
        """Return a letter that was left before a moment, or at any; None where there is none."""
        try:
            letter, said = load_tensors(self._path(name))
        except FileNotFoundError:
            return None
        left_round, left_step = map(int, said[LEFT].split())
        return letter if before is None or (left_round, left_step) < before else None

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"
