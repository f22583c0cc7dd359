"""The figures of a sweep are drawn from its finished cells, and written beside its tables with their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from thornbed.experiments.figures import Drawing
from thornbed.experiments.runs.finished import FinishedRun
from thornbed.experiments.sweeps.plan import Cell, Plan
from thornbed.experiments.sweeps.run import folder_of, settings_of
from thornbed.flower_apps.records.folder import Folder
from thornbed.flower_apps.settings import RunFailed
from thornbed.protocol.whole_files import whole

DPI = 150


def draw_figures(plan: Plan, output: Path, out: Console, err: Console) -> None:
    """Draw the figures of a plan whose cells are all finished, and say where they are.

    Raises RunFailed with the figure's name where what was run cannot be drawn.
    """
    from matplotlib import style

    runs = [_finished(cell, Folder(folder_of(output, cell))) for cell in plan.cells]
    for name, figure in plan.figures.items():
        with err.status(f"Drawing {name}"), style.context("default"):  # whatever the user's matplotlibrc says
            try:
                paths = write_drawing(figure.draw(runs), output, name)
            except RunFailed as error:
                raise RunFailed(f"the figure {name} cannot be drawn: {error}") from None
        said = f"Figure: {paths[0]}; its numbers: {', '.join(path.name for path in paths[1:])}"
        out.print(said, markup=False, highlight=False, soft_wrap=True)


def write_drawing(drawing: Drawing, folder: Path, name: str) -> Sequence[Path]:
    """Write NAME.png and the tables as CSV, each whole or not at all; return their paths, the picture first."""
    from thornbed.flower_apps.records.plots import save

    picture = folder / f"{name}.png"
    tables = {folder / f"{'-'.join(filter(None, (name, part)))}.csv": each for part, each in drawing.tables.items()}
    for path, table in tables.items():
        with whole(path) as part:
            table.to_csv(part, index=False)
    # Images that lie on a figure pixel by pixel fit its own resolution alone.
    save(drawing.picture, picture, round(drawing.picture.dpi) if drawing.picture.images else DPI)
    return [picture, *tables]


def _finished(cell: Cell, folder: Folder) -> FinishedRun:
    summary = folder.summary()
    if summary is None:
        raise RunFailed(f"{folder.path} is not finished")
    settings = settings_of(cell, folder)
    special = [str(value) for name, value in cell.varied.items() if name != "seed"]
    return FinishedRun(
        name=", ".join(special) or settings.strategy, settings=settings, metrics=summary["metrics"], folder=folder
    )
