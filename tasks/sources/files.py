"""Finding a file in the folder with the data."""

from __future__ import annotations

from pathlib import Path

from thornbed.tasks.sources import MissingData


def existing(task: str, data_dir: Path | None, files: tuple[str, ...], how: str) -> Path:
    """Return the first of the files that the folder has; raises MissingData with `how` to get them without any."""
    if data_dir is not None:
        for file in files:
            if (data_dir / file).exists():
                return data_dir / file
    wanted = " or ".join(files)
    why = "no folder was named with --data-dir" if data_dir is None else f"{data_dir} has no {wanted}"
    raise MissingData(f"{task} needs its data, but {why}: {how}")
