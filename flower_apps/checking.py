"""What is refused before a run starts, whatever its scheme of learning."""

from __future__ import annotations

import sys

from thornbed.clients.state import ClientState
from thornbed.flower_apps.inversion.precheck import check_watching
from thornbed.flower_apps.loggers import missing_package
from thornbed.flower_apps.records.folder import Folder
from thornbed.flower_apps.run.client import state_folder
from thornbed.flower_apps.run.run import Run
from thornbed.flower_apps.run.threat import check_threat
from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun
from thornbed.flower_apps.schemes.scheme import built, scheme_of
from thornbed.flower_apps.settings import BadSettings, Resolved, plugins
from thornbed.protocol.client_memory import LivingMemory


def check(settings: Resolved, *, data: bool = True) -> None:
    """Build everything once and refuse what cannot work, before anything starts; raises ValueError.

    With `data` false (deployment: the data lie on other machines) only what needs none is checked.
    """
    scheme, run = scheme_of(settings), built(settings)
    check_threat(run.attacks, scheme.known_in(settings.engine))
    _check_loggers(settings)
    scheme.check(run, data)
    if run.goes_on and scheme.keeps_state and not run.deployed:
        _check_kept(run)
    if settings.watches:
        assert isinstance(run, HorizontalRun)  # other schemes refuse what asks for it
        check_watching(run, data=data)


def _check_kept(run: Run) -> None:
    """Refuse a run that goes on where a client has not what it kept after the last round that it took part in."""
    records, folder = Folder(run.output), state_folder(run.settings, {})
    if records.rounds_done() == run.settings.rounds:
        return
    for client, last in sorted(records.last_rounds().items()):
        if last not in (ClientState(client, LivingMemory(), folder)).saved_rounds():
            raise BadSettings(
                f"--output {run.output} cannot be gone on with: what client {client} kept after round {last} is not in "
                f"{folder}; start anew with another --output"
            )


def _check_loggers(settings: Resolved) -> None:
    for spec in plugins.parse_sum(settings.logger):
        plugins.load("logger", spec)
        module = sys.modules[plugins.find("logger", spec.name).__module__]
        if package := missing_package(module):
            raise BadSettings(f"--logger {spec.name} needs the package {package}: pip install 'thornbed[{spec.name}]'")
