"""The figures that sweeps have drawn, for a report that shows them whatever lies in the folders."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from thornbed.experiments.report.pictures import read_picture
from thornbed.flower_apps.settings import plugins

DESCRIPTION = "sweep.json"  # what a sweep's folder says of itself


@dataclass(frozen=True)
class Shown:
    """A figure of a sweep: its file and the PNG in it, the title of the sweep, and the files with its numbers."""

    path: Path
    picture: bytes
    title: str
    tables: tuple[str, ...]


def figures_below(folders: Iterable[Path]) -> list[Shown]:
    """Return the figures of the sweeps in folders and below, as far as they are drawn and can be read."""
    paths = [path for folder in folders for path in sorted(folder.expanduser().resolve().rglob(DESCRIPTION))]
    return [shown for path in dict.fromkeys(paths) for shown in _figures(path)]


def _figures(description: Path) -> list[Shown]:
    try:
        content = json.loads(description.read_text(encoding="utf-8"))
        title, names = str(content["title"]), list(content["figures"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []
    # What a file names is looked up among the figures there are: it is no path.
    known = [name for name in plugins.available("figure") if name in names]
    found = []
    for name in known:
        path = description.parent / f"{name}.png"
        if png := read_picture(path):
            tables = [path.with_suffix(".csv"), *sorted(path.parent.glob(f"{name}-*.csv"))]
            found.append(Shown(path, png, title, tuple(table.name for table in tables if table.is_file())))
    return found
