"""From a plan to finished cells: done ones are skipped, interrupted ones go on, broken ones stop nobody."""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from thornbed.experiments.runs import launch
from thornbed.experiments.sweeps.estimate import Estimate, seconds_of
from thornbed.experiments.sweeps.plan import Cell, Plan, key_of
from thornbed.experiments.sweeps.workers import Report, Worker
from thornbed.flower_apps.records.folder import CONFIG, FREE, SUMMARY, Folder
from thornbed.flower_apps.resolving import check, check_address, resolve
from thornbed.flower_apps.settings import BadSettings, Busy, Interrupted, Resolved, RunFailed

CELLS, LOG = "cells", "workers.log"


def folder_of(output: Path, cell: Cell) -> Path:
    """Return the folder of a cell."""
    return output / CELLS / cell.key


def run_sweep(plan: Plan, output: Path, *, jobs: int, again: str, out: Console, err: Console) -> None:
    """Run the cells that are not done yet, at most `jobs` at a time; `again` is the command that goes on.

    The caller holds the folder's lock. Raises BadSettings before anything starts where a cell cannot be run, RunFailed
    at the end where cells are broken, and Interrupted; what is finished stays in each case.
    """
    todo = _todo(plan, output, out)
    if not todo:
        out.print(f"All {len(plan.cells)} cells are done.")
        return
    workers: list[Worker] = []
    try:
        # Workers import everything while the cells are checked here.
        count = min(jobs, len(todo))
        threads = max(1, (os.cpu_count() or 1) // count)
        workers += [Worker(threads, output / LOG) for _ in range(count)]
        seconds = _checked(plan, todo, output, err)
        estimate = Estimate(seconds.values(), jobs)
        out.print(
            f"{len(plan.cells)} cells, {len(plan.cells) - len(todo)} of them done; about "
            f"{spoken(estimate.seconds_left)} to go with {count} {'job' if count == 1 else 'jobs'}.",
            highlight=False,
        )
        broken = _Sweep(plan, output, todo, seconds, estimate, err).go(workers)
    except KeyboardInterrupt:
        done = sum((folder_of(output, cell) / SUMMARY).exists() for cell in plan.cells)
        raise Interrupted(
            f"interrupted; {done} of {len(plan.cells)} cells are done in {output}; go on with: {again}"
        ) from None
    finally:
        with _undisturbed():
            for worker in workers:
                worker.end()
    if broken:
        for cell, sentence in broken.items():
            where = folder_of(output, cell)
            err.print(f"{cell.title or cell.key}: {sentence} ({where})", markup=False, highlight=False, soft_wrap=True)
        raise RunFailed(
            f"{len(broken)} of {len(plan.cells)} cells are broken, the others are done; once the cause is gone: {again}"
        )


def _todo(plan: Plan, output: Path, out: Console) -> list[Cell]:
    """Return the cells that are not done; folders that cannot be read are set aside, and nothing is deleted."""
    todo = []
    for cell in plan.cells:
        folder = Folder(folder_of(output, cell))
        if folder.path.exists():
            try:
                if _done(cell, folder):
                    continue
            except Busy:
                raise
            except ValueError as error:
                aside = _free_name(folder.path)
                folder.path.rename(aside)
                reason = str(error).removesuffix("; name another --output").removesuffix("; name another folder")
                said = f"{reason}: it is kept as {aside.name}, and its cell is run anew."
                out.print(said, markup=False, highlight=False, soft_wrap=True)
        todo.append(cell)
    return todo


def _done(cell: Cell, folder: Folder) -> bool:
    """Return whether a cell is finished; raises BadSettings where its folder holds what no run can go on from."""
    settings = settings_of(cell, folder)
    if key_of(settings) != cell.key:
        raise BadSettings(f"{folder.path} holds another run than its name says")
    with folder.opened(settings):
        return folder.summary() is not None


def settings_of(cell: Cell, folder: Folder) -> Resolved:
    """Return what a cell is run with, as its folder has it where it was begun: one run can be spelled in two ways."""
    known = (folder.path / CONFIG).exists()
    free = {name: getattr(cell.settings, name) for name in FREE}
    begun = resolve(folder.settings()).model_copy(update=free) if known else cell.settings
    return begun.model_copy(update={"output": str(folder.path), "resume": known})


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let another Ctrl-C wait: it would end the tidying, and the sentence that says how to go on."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _free_name(path: Path) -> Path:
    numbers = (path.with_name(f"{path.name}.damaged-{number}") for number in range(1, 10**6))
    return next(name for name in numbers if not name.exists())


def _checked(plan: Plan, todo: Sequence[Cell], output: Path, err: Console) -> dict[str, float]:
    """Refuse what cannot run before the first cell starts, and return the seconds that each cell will take."""
    seconds = {}
    with err.status("Checking the cells") as status:
        for number, cell in enumerate(todo, 1):
            status.update(f"Checking cell {number} of {len(todo)}")
            try:
                check_address(cell.settings)
                check(cell.settings.model_copy(update={"output": str(folder_of(output, cell))}))
                seconds[cell.key] = seconds_of(cell.settings)
            except (ValueError, OSError, RuntimeError) as error:
                raise BadSettings(f"{plan.path}: the cell ({cell.title}): {' '.join(str(error).split())}") from None
    return seconds


def spoken(seconds: float) -> str:
    """Return a time as one says it: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class _Sweep:
    """The cells that are under way, and their progress in the terminal."""

    def __init__(
        self,
        plan: Plan,
        output: Path,
        todo: Sequence[Cell],
        seconds: Mapping[str, float],
        estimate: Estimate,
        err: Console,
    ) -> None:
        self.plan, self.output, self.todo, self.seconds, self.estimate = plan, output, list(todo), seconds, estimate
        self.err = err
        self.broken: dict[Cell, str] = {}
        self.running: dict[Worker, tuple[Cell, TaskID, float]] = {}

    def go(self, workers: list[Worker]) -> dict[Cell, str]:
        """Run everything; returns the broken cells with a sentence each. A worker that died is replaced in the list."""
        with self._bars() as (bars, overall):
            for worker in workers:
                self._next(worker, bars)
            while self.running:
                for connection in wait([worker.connection for worker in self.running]):
                    worker = next(worker for worker in self.running if worker.connection is connection)
                    self._hear(worker, worker.hear(), bars, overall)
                    if worker not in self.running:
                        if not worker.alive and self.todo:
                            fresh = Worker(max(1, (os.cpu_count() or 1) // len(workers)), self.output / LOG)
                            workers[workers.index(worker)] = fresh
                            worker.end()
                            worker = fresh
                        self._next(worker, bars)
        return self.broken

    def _next(self, worker: Worker, bars: Progress) -> None:
        if self.todo:
            cell = self.todo.pop(0)
            task = bars.add_task(cell.title or cell.key, total=cell.settings.rounds, figures="")
            worker.start(settings_of(cell, Folder(folder_of(self.output, cell))).model_dump())
            self.running[worker] = (cell, task, time.perf_counter())

    def _hear(self, worker: Worker, report: Report, bars: Progress, overall: TaskID) -> None:
        cell, task, started = self.running[worker]
        if report.kind == "round" and report.line is not None:
            bars.update(task, completed=report.line["round"], figures=launch.figures(report.line))
            return
        del self.running[worker]
        bars.remove_task(task)
        if report.kind == "done":
            self.estimate.done(self.seconds[cell.key], time.perf_counter() - started)
        else:
            self.broken[cell] = report.sentence
            self.estimate.skip(self.seconds[cell.key])
        left = self.estimate.seconds_left
        bars.update(overall, advance=1, figures=f"about {spoken(left)} to go" if left else "")

    @contextmanager
    def _bars(self) -> Iterator[tuple[Progress, TaskID]]:
        columns = [
            TextColumn("{task.description}", table_column=Column(ratio=2, no_wrap=True), markup=False),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=8)),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[figures]}", table_column=Column(no_wrap=True)),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
        ]
        with Progress(*columns, console=self.err, expand=True) as bars:
            done = len(self.plan.cells) - len(self.todo)
            yield bars, bars.add_task("cells", total=len(self.plan.cells), completed=done, figures="")


def command_again(words: Sequence[Any]) -> str:
    """Return a command as it is typed."""
    return shlex.join(map(str, words))
