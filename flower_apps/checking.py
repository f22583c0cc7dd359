"""What is refused before a run starts, whatever its scheme of learning."""

from __future__ import annotations

import sys

from thornbed.flower_apps.loggers import missing_package
from thornbed.flower_apps.run.threat import check_threat
from thornbed.flower_apps.schemes.scheme import scheme_of
from thornbed.flower_apps.settings import NONE, BadSettings, Resolved, plugins


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
