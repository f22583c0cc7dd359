"""Flower's virtual client engine: `flwr run` against a SuperLink of its own, clients in ray's processes."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import torch

from thornbed.flower_apps.engines.flower_command import environment, flower_home, flwr_run
from thornbed.flower_apps.engines.subprocess_guard import guarded
from thornbed.flower_apps.federation import OnRound
from thornbed.flower_apps.records.folder import Folder, alone
from thornbed.flower_apps.settings import Resolved, RunFailed

START_SECONDS = 60.0


def simulation(settings: Resolved, on_round: OnRound) -> dict[str, Any]:
    """Run a federation in Flower's virtual client engine; Flower's log is kept as flower.log in the output folder."""
    folder = Folder(Path(settings.output))
    log = folder.path / "flower.log"
    told = len(folder.lines())  # a resumed run has told of these already

    def follow() -> None:
        nonlocal told
        for line in folder.lines()[told:]:
            told += 1
            on_round(line)

    # The server app holds the folder's own lock; this one is for the log, and from before it starts.
    with alone(folder.path, ".simulation.lock"), superlink_for_simulation() as (home, _):
        federation = f"num-supernodes={settings.num_clients} client-resources-num-cpus=1"
        if torch.cuda.is_available() and settings.device != "cpu":
            # Clients share the GPUs, a few to each, instead of asking for a whole one.
            federation += " client-resources-num-gpus=0.25"
        flwr_run(settings, home, log, "--federation-config", federation, while_running=follow)
    if (summary := folder.summary()) is None:
        raise RunFailed(f"the simulation ended without a result (Flower's log: {log})")
    return summary


@contextmanager
def superlink_for_simulation() -> Iterator[tuple[Path, int]]:
    """Start a SuperLink in simulation mode; yields a Flower home that knows it as `thornbed`, and its port."""
    port = free_port()
    with flower_home(f"127.0.0.1:{port}", "") as home:
        command = ["flower-superlink", "--insecure", "--simulation", "--isolation", "subprocess"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--log-file", str(home / "superlink.log")]
        with guarded(command, env=environment(home), cwd=home) as process:
            wait_until_healthy(process, port, home / "superlink.log")
            yield home, port


def wait_until_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return once a SuperLink answers on its port; raises RunFailed with what its log says last."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
                if answer.status == 200 and _listens(process, port):
                    return
        except OSError:
            pass
        time.sleep(0.1)
    text = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    raise RunFailed(f"Flower's SuperLink did not start: {text[-1] if text else 'it said nothing'}")


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    """Tell whether it is this program that has the port: someone else may have taken it first."""
    with suppress(psutil.Error):
        program = psutil.Process(process.pid)
        connections = [
            each for member in [program, *program.children(recursive=True)] for each in member.net_connections()
        ]
        return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in connections)
    return False


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
