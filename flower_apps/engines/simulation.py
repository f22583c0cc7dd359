"""Flower's virtual client engine: `flwr run` against a SuperLink of its own, clients in ray's processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from flower_apps.config import Resolved, RunFailed
from flower_apps.federation import OnRound
from flower_apps.flower_cli import Follower, environment, flower_home, flwr_run
from flower_apps.records import Folder

START_SECONDS = 60.0


def simulation(settings: Resolved, on_round: OnRound) -> None:
    """Run a federation in Flower's virtual client engine; Flower's log is kept as flower.log in the output folder."""
    folder = Folder(Path(settings.output))
    folder.path.mkdir(parents=True, exist_ok=True)
    port = free_port()
    with flower_home(f"127.0.0.1:{port}", "") as home, local_superlink(home, port):
        federation = f"num-supernodes={settings.num_clients} client-resources-num-cpus=1"
        if torch.cuda.is_available() and settings.device != "cpu":
            # Clients share the GPUs, a few to each, instead of asking for a whole one.
            federation += " client-resources-num-gpus=0.25"
        follower = Follower(folder, on_round)
        log = folder.path / "flower.log"
        flwr_run(settings, home, log, "--federation-config", federation, while_running=follower.look)
    if folder.summary() is None:
        raise RunFailed(f"the simulation ended without a result (Flower's log: {folder.path / 'flower.log'})")


@contextmanager
def local_superlink(home: Path, port: int) -> Iterator[None]:
    """Start a SuperLink in simulation mode on a port of its own, and end it with all its children."""
    command = ["flower-superlink", "--insecure", "--simulation", "--isolation", "subprocess"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log-file", str(home / "superlink.log")]
    env = environment(home)
    process = subprocess.Popen(
        command, env=env, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_until_healthy(process, port, home / "superlink.log")
        yield
    finally:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, sign)
            except ProcessLookupError:
                break
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                continue


def wait_until_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return once a SuperLink answers on its port; raises RunFailed with what its log says last."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    text = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    raise RunFailed(f"Flower's SuperLink did not start: {text[-1] if text else 'it said nothing'}")


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
