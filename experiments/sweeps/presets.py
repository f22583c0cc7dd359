"""Sweep files that come with the project, one for each table or figure: experiments/presets/PAPER/TABLE.toml."""

from __future__ import annotations

import difflib
from pathlib import Path

from thornbed.flower_apps.settings import BadSettings

FOLDER = Path(__file__).resolve().parent.parent / "presets"


def available() -> dict[str, Path]:
    """Return the names, PAPER/TABLE, with their files."""
    return {str(path.relative_to(FOLDER).with_suffix("")): path for path in sorted(FOLDER.glob("*/*.toml"))}


def find(name: str) -> Path:
    """Return the file of a preset; raises BadSettings with the names that there are."""
    names = available()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]}? There are: " if close else "there are: "
        raise BadSettings(f"there is nothing to reproduce called {name}; {hint}{', '.join(names)}")
    return names[name]
