"""Real machines: `flwr run` against a running SuperLink, whose SuperNodes hold the clients."""

from __future__ import annotations

import json
import os
import shlex
import socket
import time
from pathlib import Path
from typing import Any

from thornbed.flower_apps.engines.flower_command import flower_home, flwr_run, run_id, status, stop, told
from thornbed.flower_apps.federation import OnRound
from thornbed.flower_apps.server_app import ROUND, STOPPED, SUMMARY
from thornbed.flower_apps.settings import BadSettings, Interrupted, Resolved, RunFailed


def deployment(settings: Resolved, on_round: OnRound) -> dict[str, Any] | None:
    """Submit the run to `--superlink`, follow it to its end, and return its summary.

    The server app runs beside the SuperLink and writes the records there, in `output` as seen from there. What it says
    of each round travels in Flower's log, which is kept here below runs/. Returns None where the run is complete and
    the log was cut off before its summary.
    """
    _reach(settings.superlink)
    log = _new_log(Path(settings.output).name)
    seen = 0

    def follow() -> None:
        nonlocal seen
        for line in told(log, ROUND)[seen:]:
            seen += 1
            on_round(json.loads(line))

    with flower_home(settings.superlink, settings.root_certificates) as home:
        try:
            flwr_run(settings, home, log, while_running=follow)
        except RunFailed as error:
            if told(log, STOPPED):
                raise
            if run_id(log) is None:
                raise RunFailed(f"{error}{_about_certificates(settings, str(error))}") from None
            raise RunFailed(f"{error}; go on with what is in {settings.output} there: {again(settings)}") from None
        except KeyboardInterrupt:
            raise Interrupted(_stopped(settings, home, run_id(log))) from None
        if (number := run_id(log)) is None:
            raise RunFailed(f"the SuperLink at {settings.superlink} did not start the run (Flower's log: {log})")
        end = status(home, number)
        if end["status"] != "finished:completed":
            details = end.get("status-details") or "no reason given"
            raise RunFailed(f"run {number} at {settings.superlink} is {end['status']}: {details} (Flower's log: {log})")
    summaries = told(log, SUMMARY)
    return dict(json.loads(summaries[-1])) if summaries else None


def _about_certificates(settings: Resolved, said: str) -> str:
    """Return why Flower may not reach an address at which something listens, if that is what it said."""
    if "Connection to the SuperLink is unavailable" not in said:
        return ""
    if not settings.root_certificates:
        return f"; something listens at {settings.superlink}: if it has certificates, name theirs: --root-certificates"
    return (
        f"; something listens at {settings.superlink}: it has no certificate, or none that "
        f"{settings.root_certificates} vouches for, or one for another name than that address"
    )


def _stopped(settings: Resolved, home: Path, number: str | None) -> str:
    """Stop a run that its user interrupted, and say what became of it."""
    where = f"the SuperLink at {settings.superlink}"
    if number is None:
        return f"interrupted before {where} had said that it starts the run; 'flwr list' tells whether it did"
    if not stop(home, number):
        return f"interrupted; {where} did not stop run {number}, which goes on there: flwr stop {number}"
    kept = f"what it has done is in {settings.output} there"
    return f"interrupted; {where} stopped run {number}; {kept}; go on with: {again(settings)}"


def again(settings: Resolved) -> str:
    """Return the command that goes on with a run in deployment, where all settings are said again."""
    record = f" --record {shlex.quote(settings.record)}" if settings.record else ""
    return f"{settings.command()}{record} --output {shlex.quote(settings.output)} --resume"


def _new_log(name: str) -> Path:
    """Make the empty file in which Flower's log is kept here; raises BadSettings where there can be none."""
    log = Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.flower.log"
    try:
        log.parent.mkdir(exist_ok=True)
        log.touch()
    except OSError as error:
        raise BadSettings(
            f"Flower's log cannot be kept in {log.parent.absolute()}: {error.strerror or error}; start the run from a "
            "folder that can be written"
        ) from error
    return log


def _reach(superlink: str) -> None:
    """Raise RunFailed where nothing listens at the address, before Flower tries for a minute."""
    host, _, port = superlink.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise RunFailed(
            f"no SuperLink answers at {superlink} ({error.strerror or error}); start one there: "
            "flower-superlink --insecure, or with --ssl-certfile and its kin"
        ) from None
