"""Real machines: `flwr run` against a running SuperLink, whose SuperNodes hold the clients."""

from __future__ import annotations

import tempfile
from pathlib import Path

from flower_apps.config import Resolved
from flower_apps.federation import OnRound
from flower_apps.flower_cli import Follower, flower_home, flwr_run
from flower_apps.records import Folder


def deployment(settings: Resolved, on_round: OnRound) -> None:
    """Submit the run to `--superlink` and follow it.

    The server app runs beside the SuperLink and writes the records there, into `output` on that machine. Where that
    is this machine too, rounds are shown as they come; else Flower's log is all there is to see.
    """
    folder = Folder(Path(settings.output))
    follower = Follower(folder, on_round)
    with flower_home(settings.superlink, settings.root_certificates) as home:
        log = Path(tempfile.mkstemp(prefix="thornbed-", suffix=".log")[1])
        flwr_run(settings, home, log, while_running=follower.look)
        if folder.path.is_dir():
            log.replace(folder.path / "flower.log")
