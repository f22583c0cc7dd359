"""Every metric that a run can have: its name in the records, what people call it, and how its numbers are shown.

There is no list of them here: each scheme of learning has a module `metrics` of its own, and so have inversions. Tables
of sweeps, numbers of papers, a run's own table, the report and the check of the records read what is found there, and
show what the runs at hand have.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from thornbed.flower_apps.metrics.metric import Metric

__all__ = ["METRICS", "USUAL", "Metric", "columns", "named", "rates_first"]


def _found() -> dict[str, Metric]:
    """Return the metrics of all schemes, by the names of these, then those of inversions."""
    root = Path(__file__).resolve().parent.parent
    files = [*sorted(root.glob("schemes/*/metrics.py")), root / "inversion" / "metrics.py"]
    found: dict[str, Metric] = {}
    for path in files:
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        found |= importlib.import_module(f"thornbed.flower_apps.{name}").METRICS
    return found


METRICS: Mapping[str, Metric] = MappingProxyType(_found())
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
