"""Every metric that a run can have: its name in the records, what people call it, and how its numbers are shown.

There is no list of them here: each scheme of learning has a module `metrics` of its own, and so have inversions. Tables
of sweeps, numbers of papers, a run's own table, the report and the check of the records read what is found there, and
show what the runs at hand have.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

__all__ = ["METRICS", "USUAL", "Metric", "columns", "named", "rates_first"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How a metric is shown.

    Attributes
    ----------
    words : what people call it, within a sentence.
    rate : whether it lies in [0, 1], so that it has a bar, a curve and a heatmap.
    unit : stands after a number, and after the words at the head of a column.
    form : of a number in tables of many runs, also of its deviation.
    alone : of a number that is one run's; empty: the same.
    short : in the progress bar of a run; a metric that has this keeps its column where it was not measured.
    column : whether tables for people have a column of it; files and a run's own table always have it.
    missing : stands for a number that there is not, where it is one run's.
    """

    words: str
    rate: bool = False
    unit: str = ""
    form: str = "{:.3f}"
    alone: str = ""
    short: str = ""
    column: bool = True
    missing: str = "-"

    @property
    def head(self) -> str:
        """Return the head of a column: "attack success rate", "PSNR (dB)"."""
        return self.words + (f" ({self.unit})" if self.unit else "")

    @property
    def heading(self) -> str:
        """Return the head as a title begins: "Attack success rate"."""
        return self.head[:1].upper() + self.head[1:]

    def shown(self, value: float | None) -> str:
        """Return the number of one run, with its unit."""
        if value is None:
            return self.missing
        return (self.alone or self.form).format(value) + (f" {self.unit}" if self.unit else "")


class _Found(Mapping[str, Metric]):
    """The metrics of all schemes, by the names of these, then those of inversions.

    They are found when they are first asked for: the modules that hold them import this one.
    """

    @cached_property
    def _all(self) -> Mapping[str, Metric]:
        root = Path(__file__).resolve().parent.parent
        found: dict[str, Metric] = {}
        for path in (*sorted(root.glob("schemes/*/metrics.py")), root / "inversion" / "metrics.py"):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            found |= importlib.import_module(f"thornbed.flower_apps.{name}").METRICS
        return found

    def __getitem__(self, name: str) -> Metric:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


METRICS: Mapping[str, Metric] = _Found()
# What a run without a single number is said to lack.
USUAL = ("accuracy", "attack_success_rate")


def named(contents: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the metrics that any of the contents has, be it without a number, in the order of the table above."""
    found = {name for content in contents for name in content}
    return [name for name in METRICS if name in found]


def columns(contents: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the metrics that a table of these runs has columns of, those without any number left out.

    A metric of the progress bar stays, also without one: that nobody measured it is worth a word. Where there is no
    metric at all, `USUAL` are those that are missing.
    """
    contents = list(contents)
    numbers = {name for content in contents for name, value in content.items() if value is not None}
    known = [name for name in named(contents) if METRICS[name].column]
    return [name for name in known if name in numbers or METRICS[name].short] or list(USUAL)


def rates_first(names: Iterable[str]) -> list[str]:
    """Return metrics in the order of a run's own table."""
    return sorted(names, key=lambda name: not METRICS[name].rate)
