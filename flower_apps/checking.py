"""What is refused before a run starts, whatever its scheme of learning."""

from __future__ import annotations

import sys

from flower_apps import plugins
from flower_apps.config import NONE, BadSettings, Resolved
from flower_apps.loggers import missing_package
from flower_apps.schemes import scheme_of
from flower_apps.threat import check_threat


def check(settings: Resolved, *, data: bool = True) -> None:
    """Build everything once and refuse what cannot work, before anything starts; raises ValueError.

    With `data` false (deployment: the data lie on other machines) only what needs none is checked.
    """
    scheme = scheme_of(settings)
    check_threat(settings, scheme.gives)
    _check_loggers(settings)
    scheme.check(settings, data)


def _check_loggers(settings: Resolved) -> None:
    for spec in [] if settings.logger == NONE else plugins.parse_sum(settings.logger):
        plugins.load("logger", spec)
        module = sys.modules[plugins.find("logger", spec.name).__module__]
        if package := missing_package(module):
            raise BadSettings(f"--logger {spec.name} needs the package {package}: pip install 'thornbed[{spec.name}]'")
