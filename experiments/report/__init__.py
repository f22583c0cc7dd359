"""One HTML file that shows runs side by side: what they were, what came out, and the command that repeats each.

The file stands alone: no network, no other file, and it is readable without JavaScript. Whatever lies in a run's folder
is text of others: it is escaped on its way in, and a content security policy lets nothing run but the report's own
script should an escape ever be missing.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from thornbed.experiments.report.figures import Shown
from thornbed.experiments.report.group import Group, Points, grouped, heatmap, names_of
from thornbed.experiments.report.pictures import data, size
from thornbed.experiments.report.run import DASHES, ReportedRun, acted, read_run
from thornbed.flower_apps.metrics import METRICS, columns
from thornbed.flower_apps.records.curves import panel
from thornbed.protocol.whole_files import write_text

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"


def write_report(folders: Sequence[Path], target: Path, title: str, figures: Sequence[Shown] = ()) -> None:
    """Write one HTML file about the runs in `folders`, in their order; a folder named twice is shown once.

    `figures` are those of the sweeps that the runs belong to, and stand above them.

    Runs that differ in their seed alone share a row and a curve. Runs that are not finished are listed with what they
    have, folders without a readable run with a sentence.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    paths = list(dict.fromkeys(folder.resolve() for folder in folders))
    runs = [read_run(number, name, path) for number, (name, path) in enumerate(zip(names_of(paths), paths), start=1)]
    groups = grouped(runs)
    # What two tasks gave is never laid over each other, nor averaged.
    parts: dict[str, list[Group]] = {}
    for group in groups:
        parts.setdefault(group.task, []).append(group)
    if len(parts) > 1 and not any(run.lines for group in parts.get("", ()) for run in group.runs):
        parts.pop("", None)  # nothing but damaged folders

    def suffix(task: str) -> str:
        return f", {task or 'unknown task'}" if len(parts) > 1 else ""

    pictures: dict[bytes, list[ReportedRun]] = {}
    for run in runs:
        if run.picture:
            pictures.setdefault(run.picture, []).append(run)
    script = (TEMPLATES / "script.js.jinja").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("report.html.jinja").render(
        title=title,
        runs=runs,
        groups=groups,
        metrics={name: METRICS[name] for name in columns(run.metrics for run in runs)},
        figures=[(figure, data(figure.picture), size(figure.picture)) for figure in figures],
        states=Counter(run.state for run in runs),
        parts=parts,
        heatmaps=[
            table
            for task, members in parts.items()
            for name in _rates(run.metrics for group in members for run in group.runs)
            if (table := heatmap(members, name, f"{METRICS[name].heading}{suffix(task)}")) is not None
        ],
        panels={
            task: [
                panel(
                    f"{heading}{suffix(task)}",
                    {group.number: group.points(read) for group in members},
                    bands={group.number: group.band(read) for group in members},
                )
                for heading, read in (_curves(members) if _have_a_course(members) else [])
            ]
            for task, members in parts.items()
        },
        related=[(data(run.relations), size(run.relations), run) for run in runs if run.relations],
        pictures=[(data(picture), size(picture), owners) for picture, owners in pictures.items()],
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, text)  # names of folders and texts of records may hold halves of characters


def _rates(contents: Iterable[Mapping[str, Any]]) -> list[str]:
    return [name for name in columns(contents) if METRICS[name].rate]


def _have_a_course(groups: Sequence[Group]) -> bool:
    """Tell whether curves say more than the table: a line from an untrained model to its only round does not."""
    return any(len(run.lines) != 2 for group in groups for run in group.runs)


def _curves(groups: Sequence[Group]) -> list[tuple[str, Callable[[ReportedRun], Points]]]:
    """Return what has a curve over the rounds, with its title and how a run tells it."""
    lines = (line for group in groups for run in group.runs for line in run.lines)
    return [
        *((METRICS[name].heading, partial(ReportedRun.points, metric=name)) for name in _rates(lines)),
        ("Share that the defense cut away", ReportedRun.cut),
    ]


__all__ = ["DASHES", "TEMPLATES", "ReportedRun", "acted", "write_report"]
