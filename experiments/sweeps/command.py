"""What `thornbed sweep`, `reproduce`, `show` and `report` do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from thornbed.experiments.report.figures import DESCRIPTION, figures_below
from thornbed.experiments.sweeps import presets
from thornbed.experiments.sweeps.drawing import draw_figures
from thornbed.experiments.sweeps.plan import Plan, read_plan
from thornbed.experiments.sweeps.results import as_texts, beside_published, compared, readable, runs_frame, write_tables
from thornbed.experiments.sweeps.run import command_again, folder_of, run_sweep, spoken
from thornbed.flower_apps.inversion.records import GRID, INVERSIONS
from thornbed.flower_apps.metrics import METRICS, USUAL, named, rates_first
from thornbed.flower_apps.records.folder import CONFIG, Folder, alone
from thornbed.flower_apps.settings import BadSettings, Settings
from thornbed.protocol.whole_files import write_text

if TYPE_CHECKING:
    import pandas as pd

# Also one with its deviation, and what stands for none.
NUMBER = re.compile(r"[-+–±0-9. ]+|[0-9.]+e[-+][0-9]+( ± [0-9.]+e[-+][0-9]+)?")


def sweep(
    file: Path, jobs: int, seeds: str | None, output: Path | None, data_dir: str | None, out: Console, err: Console
) -> None:
    """Run a sweep file and print what came out; the arguments are those of the command line."""
    plan = read_plan(file, overrides=_overrides(seeds, data_dir))
    folder = (output or Path("runs") / "sweeps" / file.stem).expanduser().resolve()
    _run(plan, folder, jobs, ["thornbed", "sweep", file, *_typed(jobs, seeds, output, data_dir)], out, err)


def reproduce(
    name: str,
    scale: str,
    jobs: int,
    seeds: str | None,
    output: Path | None,
    data_dir: str | None,
    out: Console,
    err: Console,
) -> None:
    """Run a preset, print the paper's numbers beside ours, and write the table as CSV, JSON and LaTeX."""
    plan = read_plan(presets.find(name), scale=scale, overrides=_overrides(seeds, data_dir))
    folder = (output or Path("runs") / "reproduce" / name / scale).expanduser().resolve()
    again = ["thornbed", "reproduce", name, "--scale", scale, *_typed(jobs, seeds, output, data_dir)]
    _run(plan, folder, jobs, again, out, err)
    if not plan.published:
        out.print("There are no published numbers beside which to put these.")


def list_presets(out: Console) -> None:
    """Print which tables can be run again, how long it takes, and what data it needs."""
    table = Table(title="thornbed reproduce PAPER/TABLE")
    table.add_column("PAPER/TABLE", no_wrap=True, overflow="fold")  # what is typed has to be whole
    for name in ("what", "time: cpu", "time: paper", "data"):
        table.add_column(name)
    for name, path in presets.available().items():
        plan = read_plan(path, scale="cpu")
        minutes = {scale: spoken(60 * time) for scale, time in plan.about.minutes.items()}
        table.add_row(
            name,
            f"{plan.about.title} ({plan.about.source})",
            minutes.get("cpu", "?"),
            minutes.get("paper", "?"),
            plan.about.data,
        )
    out.print(table)
    out.print("Times are of one job on two cores.")


def show(folder: Path, out: Console) -> None:
    """Print a run, or every run below a folder, and where the figures of its sweep are."""
    folders = runs_below([folder])
    runs = runs_frame(folders)
    if folders:
        table = None if runs.empty else _rich(as_texts(compared(runs)), str(folder), out)
        out.print(table or "No run in here is finished.")
    for figure in figures_below([folder]):
        out.print(f"Figure: {figure.path}", markup=False, highlight=False, soft_wrap=True)
    if len(folders) == 1:
        _show_run(folders[0], out)


def report(folders: Sequence[Path], output: Path | None, out: Console) -> None:
    """Write report.html and the table of its runs as CSV, JSON and LaTeX."""
    from thornbed.experiments.report import write_report

    runs, figures = runs_below(folders), figures_below(folders)
    target = (output or folders[0]).expanduser().resolve()
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadSettings(f"--output {target} cannot be made: {error.strerror}") from None
    write_report([run.path for run in runs], target / "report.html", _title(folders), figures)
    finished = runs_frame(runs)
    if not finished.empty:
        write_tables(compared(finished), target, "results")
    if damaged := len(runs) - len(readable(runs)):
        out.print(f"{damaged} of {len(runs)} folders are damaged; the report says how.")
    out.print(f"Report: {target / 'report.html'}", markup=False, highlight=False, soft_wrap=True)


def runs_below(folders: Sequence[Path]) -> list[Folder]:
    """Return the runs in folders: each itself, or all below it.

    Raises BadSettings where there is none, and no figure that is drawn without runs.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        path = folder.expanduser().resolve()
        if not path.is_dir():
            raise BadSettings(f"{folder} is no folder; name the output of a run or of a sweep")
        below = (config for config in path.rglob(CONFIG) if ".damaged-" not in config.parent.name)
        configs = [path / CONFIG] if (path / CONFIG).exists() else _in_order(path, below)
        if not configs and not figures_below([path]):
            inverted = (path / INVERSIONS).exists()
            said = f"; it holds inversions, and {GRID} shows them" if inverted else ""
            raise BadSettings(f"{folder} holds no run; there is no {CONFIG} in it or below{said}")
        found |= dict.fromkeys(config.parent for config in configs)
    return [Folder(path) for path in found]


def _in_order(path: Path, configs: Iterable[Path]) -> list[Path]:
    """Return the cells of a sweep in the order of its file, anything else by its name."""
    try:
        cells = list(json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))["cells"])
    except (OSError, ValueError, LookupError, TypeError):
        cells = []
    places = {key: place for place, key in enumerate(cells)}
    return sorted(configs, key=lambda config: (places.get(config.parent.name, len(places)), config))


def _run(plan: Plan, folder: Path, jobs: int, again: Sequence[Any], out: Console, err: Console) -> None:
    """Run a plan and print its tables, of what is done also where cells are broken or the user interrupts."""
    with alone(folder):
        content = {
            "file": plan.path.name,
            "title": plan.about.title,
            "cells": {cell.key: cell.title for cell in plan.cells},
            "figures": list(plan.figures),
        }
        write_text(folder / DESCRIPTION, json.dumps(content, indent=2) + "\n")
        if plan.cells:
            try:
                run_sweep(plan, folder, jobs=jobs, again=command_again(again), out=out, err=err)
            finally:
                _tell(plan, folder, out)
        if plan.figures:
            draw_figures(plan, folder, out, err)
    said = f"Cells and tables: {folder}; a report: {command_again(['thornbed', 'report', folder])}"
    out.print(said, markup=False, highlight=False, soft_wrap=True)


def _tell(plan: Plan, folder: Path, out: Console) -> None:
    """Write and print the table of finished cells, and the paper's numbers beside ours where there are any."""
    runs = runs_frame(Folder(folder_of(folder, cell)) for cell in plan.cells)
    if runs.empty:
        return
    write_tables(compared(runs), folder, "results")
    out.print(_rich(as_texts(compared(runs)), plan.about.title or plan.path.stem, out))
    if plan.published:
        table = beside_published(plan, runs)
        write_tables(table, folder, "published")
        texts = as_texts(table).drop(columns="source")
        texts["metric"] = [METRICS[name].words for name in table["metric"]]
        out.print(_rich(texts, f"{plan.about.title}: {plan.about.source}", out))
        out.print(f"Tables: published.csv, .json and .tex in {folder}", markup=False, highlight=False, soft_wrap=True)


def _overrides(seeds: str | None, data_dir: str | None) -> dict[str, Any]:
    values: dict[str, Any] = {} if data_dir is None else {"data_dir": data_dir}
    if seeds is not None:
        if not re.fullmatch(r"\s*\d{1,19}\s*(,\s*\d{1,19}\s*)*", seeds):
            raise BadSettings(f"--seeds takes whole numbers joined by commas, such as 0,1,2, not {seeds!r}")
        values["seed"] = [int(seed) for seed in seeds.split(",")]
    return values


def _typed(jobs: int, seeds: str | None, output: Path | None, data_dir: str | None) -> list[Any]:
    given = {"--jobs": None if jobs == 1 else jobs, "--seeds": seeds, "--output": output, "--data-dir": data_dir}
    return [word for flag, value in given.items() if value is not None for word in (flag, value)]


def _rich(texts: pd.DataFrame, title: str, out: Console) -> Table:
    """Return a table as wide as the terminal; where that has no room for a column each, settings share one, and where
    it still has none, metrics share another.
    """
    # The files have them; a terminal is narrow.
    texts = texts.drop(columns=[metric.head for metric in METRICS.values() if not metric.column], errors="ignore")
    settings = [name for name in map(str, texts) if name.replace(" ", "_") in Settings.model_fields]
    if "task" in texts:  # what is another for every task, its model or its batch size, the files have too
        others = (name for name in settings if name not in ("task", "strategy", "attack"))
        follows = [name for name in others if (texts.groupby("task")[name].nunique() == 1).all()]
        texts, settings = texts.drop(columns=follows), [name for name in settings if name not in follows]
    table = _columns(texts, title)
    results = [metric.head for metric in METRICS.values() if metric.head in texts]
    for head, names in (("run", settings), ("results", results)):
        needed = Measurement.get(out, out.options.update(width=10**4), table).minimum
        if needed > out.width and names:
            shared = texts[names].apply(lambda row: "\n".join(_said(*pair) for pair in row.items()), axis=1)
            place = list(texts).index(names[0])
            texts = texts.drop(columns=names)
            texts.insert(place, head, shared)
            table = _columns(texts, title)
    return table


def _said(name: str, value: str) -> str:
    return f"{name} {value}" if NUMBER.fullmatch(value) else value


def _columns(texts: pd.DataFrame, title: str) -> Table:
    table = Table(title=escape(title), show_lines="run" in texts)
    for name in map(str, texts):
        number = bool(texts[name].str.fullmatch(NUMBER).all())
        justify: Literal["left", "right"] = "right" if number else "left"
        header = name.replace("attack success", "attack\nsuccess")
        least = int(texts[name].str.len().max()) if number else 10
        table.add_column(header, overflow="fold", no_wrap=number, justify=justify, min_width=least)
    for row in texts.itertuples(index=False):
        table.add_row(*map(escape, row))
    return table


def _show_run(folder: Folder, out: Console) -> None:
    folder.check()
    lines = folder.lines()[-10:]
    metrics = {name: METRICS[name] for name in rates_first(named(lines) or (*USUAL, "loss"))}
    table = Table("round", *(metric.words for metric in metrics.values()), "dropped", title="last rounds")
    for line in lines:
        numbers = ["–" if line.get(name) is None else metric.shown(line[name]) for name, metric in metrics.items()]
        table.add_row(str(line["round"]), *numbers, str(len(line.get("dropped", ()))))
    out.print(table)
    out.print(folder.settings().command(), soft_wrap=True, markup=False, highlight=False)


def _title(folders: Sequence[Path]) -> str:
    """Return what sweeps call themselves, and the names of other folders."""
    titles = []
    for folder in folders:
        try:
            title = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))["title"]
        except (OSError, ValueError, LookupError, TypeError):
            title = ""
        titles.append(str(title) or folder.resolve().name)
    return ", ".join(titles)
