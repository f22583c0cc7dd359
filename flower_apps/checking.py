"""What is refused before a run starts, whatever its scheme of learning."""

from __future__ import annotations

import sys

from thornbed.flower_apps.inversion.precheck import check_watching
from thornbed.flower_apps.loggers import missing_package
from thornbed.flower_apps.run.threat import check_threat
from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun
from thornbed.flower_apps.schemes.scheme import built, scheme_of
from thornbed.flower_apps.settings import BadSettings, Resolved, plugins


def check(settings: Resolved, *, data: bool = True) -> None:
    """Build everything once and refuse what cannot work, before anything starts; raises ValueError.

    With `data` false (deployment: the data lie on other machines) only what needs none is checked.
    """
    scheme, run = scheme_of(settings), built(settings)
    check_threat(run.attacks, scheme.known_in(settings.engine))
    _check_loggers(settings)
    scheme.check(run, data)
    if settings.watches:
        assert isinstance(run, HorizontalRun)  # other schemes refuse what asks for it
        check_watching(run, data=data)


def _check_loggers(settings: Resolved) -> None:
    for spec in plugins.parse_sum(settings.logger):
        plugins.load("logger", spec)
        module = sys.modules[plugins.find("logger", spec.name).__module__]
        if package := missing_package(module):
            raise BadSettings(f"--logger {spec.name} needs the package {package}: pip install 'thornbed[{spec.name}]'")
