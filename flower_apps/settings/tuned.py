"""What a task was tuned with stands in for what a spec or a flag leaves out: `--task har --strategy mocha`.

The values are in one place, the constant `TUNED` of the task's module, and hold for no other task. They become part of
the resolved settings, so that a run's records name them.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from thornbed.flower_apps.settings import NONE, Settings, plugins
from thornbed.flower_apps.settings.plugins import Spec
from thornbed.tasks import Tuned

TAKEN = ("strategy", "attack", "defense", "curious")
"""The settings whose specs a task may have options for."""


def tuned(task: str) -> Tuned:
    """Return what a task, given by its spec, was tuned with; loads no data.

    Raises BadSpec where there is no such task, TypeError for a constant that is something else.
    """
    function = plugins.find("task", plugins.parse(task).name)
    found = getattr(importlib.import_module(function.__module__), "TUNED", Tuned())
    if not isinstance(found, Tuned):
        raise TypeError(f"{function.__module__} has a constant TUNED that is no Tuned: {type(found).__name__}")
    return found


def with_tuned(task: str, text: str) -> str:
    """Return specs joined by `+`, each with the task's options after those that it names itself."""
    options = tuned(task).options
    return " + ".join(str(_filled(spec, options.get(spec.name, {}))) for spec in plugins.parse_sum(text)) or NONE


@cache
def _chosen() -> Mapping[str, frozenset[str]]:
    """Return, by plug-in, the options that some task has of its own; a module without the constant is not imported."""
    found: dict[str, frozenset[str]] = {}
    for task, folder in plugins.available("task").items():
        spec = importlib.util.find_spec(f"thornbed.{folder.replace('/', '.')}.{task}")
        if spec and spec.origin and "TUNED" in Path(spec.origin).read_text(encoding="utf-8"):
            for name, options in tuned(task).options.items():
                found[name] = found.get(name, frozenset()) | options.keys()
    return found


def not_chosen(settings: Settings) -> list[str]:
    """Return, as `mocha: lambda1=0.001`, what other tasks have of their own and nobody has chosen on this run's task.

    Options that a run computes, and those that a spec names or the task has, are not among them.
    """
    said = []
    own = tuned(settings.task).options
    for kind in TAKEN:
        for spec in plugins.parse_sum(getattr(settings, kind)):
            defaults = {option.name: option.default for option in plugins.describe(kind, spec.name).options}
            left = _chosen().get(spec.name, frozenset()) - spec.options.keys() - own.get(spec.name, {}).keys()
            shown = [f"{name}={defaults[name]}" for name in sorted(left) if defaults[name] not in (None, "None")]
            if shown:
                said.append(f"{spec.name}: {', '.join(shown)}")
    return said


def _filled(spec: Spec, options: Mapping[str, Any]) -> Spec:
    return Spec(spec.name, {**spec.options, **{key: each for key, each in options.items() if key not in spec.options}})
