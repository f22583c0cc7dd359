"""Extractors of an earlier run (--start-from), and which rows they have seen: those cannot be held out any more."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from thornbed.flower_apps.run.stored_model import stored_model
from thornbed.flower_apps.settings import BadSettings, Resolved
from thornbed.protocol.tensor_files import load_tensors

EXTRACTOR = "extractor"  # before a client's number in the names of its tensors
OF_TASK, ROWS = "extractors_of_task", "extractors_saw_rows"  # texts of a model file


def earlier(settings: Resolved, own: Mapping[str, Tensor], held_out_after: int | None) -> dict[str, Tensor]:
    """Return the extractors of an earlier run's model, which have the names and shapes of `own`.

    held_out_after : how many of the first training rows may have been seen, where the others are held out.
    Raises BadSettings where the file has none that fit, or that have seen others.
    """
    found, said = stored_model(settings, own, prefix=EXTRACTOR)
    if held_out_after is not None:
        _check_unseen(settings, Path(settings.start_from).expanduser(), said, held_out_after)
    return found


def trained_on(settings: Resolved, num_rows: int) -> dict[str, str]:
    """Return what a model file says of its extractors: the task, and how many of its first training rows they saw.

    num_rows : what the run trains on. Extractors that come from an earlier run saw what that run's file says, if any.
    """
    if not settings.start_from:
        return {OF_TASK: settings.task, ROWS: str(num_rows)}
    _, said = load_tensors(Path(settings.start_from).expanduser())
    return {name: said[name] for name in (OF_TASK, ROWS) if name in said}


def _check_unseen(settings: Resolved, path: Path, said: Mapping[str, str], held_out_after: int) -> None:
    task, seen = said.get(OF_TASK, ""), said.get(ROWS, "")
    if not seen.isdecimal():
        raise BadSettings(
            f"--start-from {path} does not say which rows its extractors were trained on, and validation holds out "
            f"those after the first {held_out_after}; train extractors anew, or leave validation"
        )
    if task != settings.task or int(seen) > held_out_after:
        raise BadSettings(
            f"--start-from {path} has extractors that were trained on the first {seen} rows of --task {task}, and "
            f"validation holds out those after the first {held_out_after} of --task {settings.task}; take extractors "
            "of a run with the same validation"
        )
