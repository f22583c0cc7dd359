"""Letters that attackers leave for each other in a folder that they share, out of the server's sight.

A letter says in which step of which round it was left. Most letters are read in later steps only: so nobody waits for
anybody, an attacker finds the same whoever was faster, and every engine gives the same run. Where attackers need each
other's letters of the same round, they wait for them, on machines of their own, for a limited time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from torch import Tensor

from thornbed.protocol.tensor_files import found_once, load_tensors, save_tensors

Moment = tuple[int, int]
"""A round and a step of it; step -1 is before the first."""
LEFT = "left"
KEPT = 2  # of letters of every round: those of the round that is going on, and of the one before
LOOK_SECONDS = 0.1  # between two looks for a letter that is waited for


class Channel:
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
        left_round, left_step = map(int, said.get(LEFT, "0 0").split())
        return letter if before is None or (left_round, left_step) < before else None

    def once(self, name: str, find: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return a letter, which whichever attacker comes first finds and leaves while the others wait."""
        return found_once(self._path(name), find)

    def leave_in_round(self, name: str, server_round: int, letter: Mapping[str, Tensor]) -> None:
        """Leave a letter that belongs to a round, and forget those of all but the latest rounds."""
        self.leave(f"{name}-round-{server_round}", letter, (server_round, 0))
        self._forget(name)

    def once_in_round(
        self, name: str, server_round: int, find: Callable[[], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return a letter of a round, which whichever attacker comes first finds and leaves while the others wait."""
        letter = self.once(f"{name}-round-{server_round}", find)
        self._forget(name)
        return letter

    def of_round(self, name: str, server_round: int) -> dict[str, Tensor] | None:
        """Return the letter of a round; None where there is none."""
        return self.read(f"{name}-round-{server_round}")

    def before_round(self, name: str, server_round: int) -> dict[str, Tensor] | None:
        """Return the letter of the latest round before this one; None where there is none."""
        earlier = [known for known in self._rounds(name) if known < server_round]
        return self.of_round(name, max(earlier)) if earlier else None

    def wait_for(self, names: Iterable[str], server_round: int, seconds: float) -> dict[str, dict[str, Tensor]]:
        """Return the letters of a round that came within the time, by name."""
        deadline, missing = time.monotonic() + seconds, list(names)
        came: dict[str, dict[str, Tensor]] = {}
        while missing:
            for name in list(missing):
                if (letter := self.of_round(name, server_round)) is not None:
                    came[name] = letter
                    missing.remove(name)
            if not missing or time.monotonic() > deadline:
                break
            time.sleep(LOOK_SECONDS)
        return came

    def _forget(self, name: str) -> None:
        for old in sorted(self._rounds(name))[:-KEPT]:
            self._path(f"{name}-round-{old}").unlink(missing_ok=True)

    def _rounds(self, name: str) -> set[int]:
        names = [re.fullmatch(rf"{re.escape(name)}-round-(\d+)", path.stem) for path in self.folder.glob("*-round-*")]
        return {int(found[1]) for found in names if found}

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"
