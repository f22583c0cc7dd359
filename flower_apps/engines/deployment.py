"""Real machines: `flwr run` against a running SuperLink, whose SuperNodes hold the clients."""

from __future__ import annotations

import socket
from pathlib import Path

from flower_apps.config import Resolved, RunFailed
from flower_apps.federation import OnRound
from flower_apps.flower_cli import Follower, flower_home, flwr_run
from flower_apps.records import Folder


def deployment(settings: Resolved, on_round: OnRound) -> None:
    """Submit the run to `--superlink` and follow it to its end; Flower's log is kept as flower.log in `output`.

    The server app runs beside the SuperLink and writes the records there, under the same path. Where that is this
    machine too, rounds are shown as they come; else the log is what there is to see.
    """
    host, _, port = settings.superlink.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise RunFailed(
            f"no SuperLink answers at {settings.superlink} ({error.strerror or error}); start one there: "
            "flower-superlink --insecure, or with --ssl-certfile and its kin"
        ) from None
    folder = Folder(Path(settings.output))
    folder.path.mkdir(parents=True, exist_ok=True)
    follower = Follower(folder, on_round)
    with flower_home(settings.superlink, settings.root_certificates) as home:
        flwr_run(settings, home, folder.path / "flower.log", while_running=follower.look)
