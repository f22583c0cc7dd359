"""Runs that differ in their seed alone, as one row and one curve; and what stands against what."""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from thornbed.experiments.report.run import Numbered, ReportedRun
from thornbed.flower_apps.records.folder import WHEREABOUTS
from thornbed.flower_apps.settings import Settings

CELL = re.compile(r"[0-9a-f]{12}")  # the folder of a sweep's cell: a hash says nothing to a reader
Points = list[tuple[float, float | None]]
APART = [name for name in Settings.model_fields if name not in (*WHEREABOUTS, "seed")]


@dataclass(frozen=True, kw_only=True)
class Group(Numbered):
    """One or several runs; several have the same settings and seeds of their own."""

    runs: Sequence[ReportedRun]
    name: str = ""
    apart: Mapping[str, str] = field(default_factory=dict)
    """Settings in which groups of the same task differ, as text."""

    @property
    def task(self) -> str:
        """Return the task with its options; empty where it is not known."""
        return "" if self.first.problem else self.first.settings.get("task", "")

    @property
    def first(self) -> ReportedRun:
        """Return the run that speaks for what all have in common."""
        return self.runs[0]

    @property
    def told(self) -> Sequence[ReportedRun]:
        """Return the finished runs, or all while none is: a run on its way does not belong into a mean of ends."""
        return [run for run in self.runs if run.state == "finished"] or self.runs

    @property
    def state(self) -> str:
        """Return finished where all runs are, else the state of one that is not."""
        return next((run.state for run in self.runs if run.state != "finished"), "finished")

    def metric(self, name: str) -> tuple[float | None, float | None]:
        """Return the mean of a metric and its standard deviation (of the sample); None where there is none."""
        values = [value for run in self.told if (value := run.metrics.get(name)) is not None]
        return statistics.fmean(values) if values else None, statistics.stdev(values) if len(values) > 1 else None

    def points(self, read: Callable[[ReportedRun], Points]) -> Points:
        """Return the mean of a rate by round over the runs that have it."""
        return [(x, statistics.fmean(values) if values else None) for x, values in self._by_round(read)]

    def band(self, read: Callable[[ReportedRun], Points]) -> list[tuple[float, float, float]]:
        """Return (round, mean - deviation, mean + deviation), held to [0, 1], where two runs or more have the rate."""
        several = [(x, statistics.fmean(v), statistics.stdev(v)) for x, v in self._by_round(read) if len(v) > 1]
        return [(x, max(mean - spread, 0.0), min(mean + spread, 1.0)) for x, mean, spread in several]

    def _by_round(self, read: Callable[[ReportedRun], Points]) -> list[tuple[float, list[float]]]:
        found: dict[float, list[float]] = {}
        for run in self.told:
            for x, y in read(run):
                found.setdefault(x, []).extend([] if y is None else [y])
        return sorted(found.items()) if len(self.runs) > 1 else list(found.items())

    @property
    def never_acted(self) -> bool:
        """Return whether the defense of one of the runs changed nothing in any round."""
        return any(run.never_acted for run in self.runs)

    @property
    def dropped(self) -> int:
        """Return how many replies were dropped in all runs."""
        return sum(run.dropped for run in self.runs)

    @property
    def seconds(self) -> float | None:
        """Return the mean seconds of a run."""
        known = [seconds for run in self.runs if (seconds := run.seconds) is not None]
        return statistics.fmean(known) if known else None


def grouped(runs: Sequence[ReportedRun]) -> list[Group]:
    """Put runs together that differ in their seed alone, in the order of their first; damaged ones stay alone."""
    found: dict[str, list[ReportedRun]] = {}
    for run in runs:
        settings = {name: run.settings.get(name) for name in APART}
        key = json.dumps(settings, sort_keys=True) if run.settings and not run.problem else f"alone {run.number}"
        found.setdefault(key, []).append(run)
    groups: list[list[ReportedRun]] = []
    for members in found.values():
        seeds = [run.settings.get("seed") for run in members]
        # The same run in two places is no repetition, and its spread would be none.
        groups += [members] if len(set(seeds)) == len(seeds) else [[run] for run in members]
    groups.sort(key=lambda members: members[0].number)
    apart = [_apart(members[0], groups) for members in groups]
    names = _names(groups, apart)
    return [
        Group(number=n, runs=runs, name=name, apart=settings)
        for n, (runs, name, settings) in enumerate(zip(groups, names, apart), start=1)
    ]


def _apart(run: ReportedRun, groups: Sequence[Sequence[ReportedRun]]) -> dict[str, str]:
    """Return the settings of a run that differ between groups: its task, and the others among groups of its task.

    Another task has another model, other rounds and so on, which tells nothing of what is compared.
    """
    firsts = [members[0].settings for members in groups if not members[0].problem]
    alike = [settings for settings in firsts if settings.get("task") == run.settings.get("task")]
    return {
        name: run.settings.get(name, "")
        for name in APART
        if len({settings.get(name) for settings in (firsts if name == "task" else alike)}) > 1
    }


def _names(groups: Sequence[Sequence[ReportedRun]], apart: Sequence[Mapping[str, str]]) -> list[str]:
    """Return a lone run's own name, and for seeds and cells what tells their settings from those of other groups."""
    told = [", ".join(settings.values()) for settings in apart]
    counts = Counter(told)
    return [
        text
        if text and counts[text] == 1 and (len(members) > 1 or CELL.fullmatch(members[0].name))
        else members[0].name
        for text, members in zip(told, groups)
    ]


@dataclass(frozen=True)
class Heatmap:
    """A metric of every defense (row) against every attack (column), None where no run stands.

    `averaged` names the settings in which runs differ that share a cell.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[float | None]]] = field(default=())
    averaged: Sequence[str] = ()


def heatmap(groups: Sequence[Group], metric: str, title: str) -> Heatmap | None:
    """Return the mean of a metric by defense and attack; None without two of each.

    A cell holds the mean over all groups of its kind where they differ in something else besides.
    """
    cells: dict[tuple[str, str], list[tuple[Group, float]]] = {}
    for group in groups:
        value, _ = group.metric(metric)
        if group.told[0].state == "finished" and value is not None:
            cells.setdefault((_defense(group), group.first.settings.get("attack", "?")), []).append((group, value))
    defenses, attacks = (list(dict.fromkeys(key[place] for key in cells)) for place in (0, 1))
    if len(defenses) < 2 or len(attacks) < 2:
        return None
    value_of = {key: statistics.fmean(value for _, value in several) for key, several in cells.items()}
    rows = [(row, [value_of.get((row, column)) for column in attacks]) for row in defenses]
    sharing = [[group.first.settings for group, _ in several] for several in cells.values()]
    averaged = [name for name in APART if any(len({of.get(name) for of in several}) > 1 for several in sharing)]
    return Heatmap(title, attacks, rows, averaged)


def _defense(group: Group) -> str:
    settings = group.first.settings
    clients = settings.get("defense", "none")
    return settings.get("strategy", "?") + ("" if clients == "none" else f" + {clients}")


def names_of(paths: Sequence[Path]) -> list[str]:
    """Return the last part of every path, with as many parts before it as tell it from the others."""
    tails = [["/".join(path.parts[-depth:]) for depth in range(1, len(path.parts) + 1)] for path in paths]
    taken = Counter(tail for several in tails for tail in several)
    return [next((tail for tail in several if taken[tail] == 1), several[-1]) for several in tails]
