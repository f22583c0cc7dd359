"""What a task was tuned with stands in for what a spec or a flag leaves out: `--task har --strategy mocha`.

The values are in one place, the constant `TUNED` of the task's module, and hold for no other task. They become part of
the resolved settings, so that a run's records name them.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from thornbed.flower_apps.settings import NONE, plugins
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


def _filled(spec: Spec, options: Mapping[str, Any]) -> Spec:
    return Spec(spec.name, {**spec.options, **{key: each for key, each in options.items() if key not in spec.options}})
