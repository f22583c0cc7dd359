"""Loggers, one a file: `NAME(folder, settings, *, options) -> Logger` shows a run in a program that a lab already uses.

metrics.jsonl holds all of it anyway; a logger repeats the figures of each round elsewhere. A module that needs a
package of its own names it in `PACKAGE`; the extra of that name installs it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Protocol


class Logger(Protocol):
    """What takes the rounds of one run."""

    def log(self, line: Mapping[str, Any]) -> None:
        """Take a line of metrics.jsonl."""

    def close(self) -> None:
        """End, and keep everything."""


def figures(line: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a line but its round, those of the defense under `defense/`."""
    numbers = {name: value for name, value in line.items() if name != "round"}
    numbers |= {f"defense/{name}": value for name, value in dict(line.get("defense", {})).items()}
    return {
        name: float(value)
        for name, value in numbers.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def missing_package(module: ModuleType) -> str | None:
    """Return the package that a logger's module needs and that is not installed; None where all is there."""
    package = getattr(module, "PACKAGE", None)
    return package if package is not None and importlib.util.find_spec(package) is None else None
