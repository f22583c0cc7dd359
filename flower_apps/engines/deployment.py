"""Real machines: `flwr run` against a running SuperLink, whose SuperNodes hold the clients."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from flower_apps.config import Resolved, RunFailed
from flower_apps.federation import OnRound
from flower_apps.flower_cli import ROUND, SUMMARY, flower_home, flwr_run, run_id, status, stop, told


def deployment(settings: Resolved, on_round: OnRound) -> dict[str, Any] | None:
    """Submit the run to `--superlink`, follow it to its end, and return its summary.

    The server app runs beside the SuperLink and writes the records there, in `output` as seen from there. What it says
    of each round travels in Flower's log, which is kept here below runs/. Returns None where the run is complete and
    the log was cut off before its summary.
    """
    _reach(settings.superlink)
    log = Path("runs") / f"{Path(settings.output).name}.flower.log"
    seen = 0

    def follow() -> None:
        nonlocal seen
        for line in told(log, ROUND)[seen:]:
            seen += 1
            on_round(json.loads(line))

    with flower_home(settings.superlink, settings.root_certificates) as home:
        try:
            flwr_run(settings, home, log, while_running=follow)
        except KeyboardInterrupt:
            if (number := run_id(log)) is not None:
                stop(home, number)
            raise
        if (number := run_id(log)) is None:
            raise RunFailed(f"the SuperLink at {settings.superlink} did not start the run (Flower's log: {log})")
        end = status(home, number)
        if end["status"] != "finished:completed":
            details = end.get("status-details") or "no reason given"
            raise RunFailed(f"run {number} at {settings.superlink} is {end['status']}: {details} (Flower's log: {log})")
    summaries = told(log, SUMMARY)
    return dict(json.loads(summaries[-1])) if summaries else None


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
