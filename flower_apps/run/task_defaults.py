"""What a task is trained with where no flag says otherwise."""

from __future__ import annotations

import importlib

from thornbed.flower_apps.settings import Settings, plugins
from thornbed.tasks import Defaults


def task_defaults(settings: Settings) -> Defaults:
    """Return the constant DEFAULTS of the task's module; raises TypeError where there is none."""
    function = plugins.find("task", plugins.parse(settings.task).name)
    defaults = importlib.import_module(function.__module__).DEFAULTS
    if not isinstance(defaults, Defaults):
        raise TypeError(f"{function.__module__} needs a constant DEFAULTS: Defaults")
    return defaults
