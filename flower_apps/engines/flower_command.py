"""Flower's own command line, started for a run: `flwr run` against a SuperLink, with everything of its own folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tomli_w

from thornbed.flower_apps.engines.subprocess_guard import guarded
from thornbed.flower_apps.server_app import STOPPED
from thornbed.flower_apps.settings import Resolved, RunFailed
from thornbed.flower_apps.settings.plugins import ROOT


def environment(home: Path) -> dict[str, str]:
    """Return an environment in which Flower keeps to `home`, calls nobody, and finds this Python's programs."""
    return {
        **os.environ,
        "FLWR_HOME": str(home),
        # Otherwise every run would build an environment of its own, with several GB of torch in it.
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONUNBUFFERED": "1",
    }


@contextmanager
def flower_home(address: str, root_certificates: str) -> Iterator[Path]:
    """Make a temporary Flower home that knows one SuperLink, `thornbed`."""
    security = {"root-certificates": root_certificates} if root_certificates else {"insecure": True}
    known = {"superlink": {"default": "thornbed", "thornbed": {"address": address, **security}}}
    with TemporaryDirectory(prefix="thornbed-", ignore_cleanup_errors=True) as name:
        home = Path(name)
        (home / "config.toml").write_text(tomli_w.dumps(known), encoding="utf-8")
        yield home


def flwr_run(
    settings: Resolved, home: Path, log: Path, *options: str, while_running: Callable[[], None] = lambda: None
) -> None:
    """Start the run, follow it to its end, and keep Flower's log; raises RunFailed with the reason it logged.

    `while_running` is called a few times a second. That `flwr run` ends well does not say that the run did.
    """
    app = app_folder()
    log.parent.mkdir(parents=True, exist_ok=True)
    config = home / "run.toml"
    config.write_text(tomli_w.dumps(settings.to_run_config()), encoding="utf-8")
    command = ["flwr", "run", str(app), "thornbed", "--stream", "--run-config", str(config), *options]
    with (
        log.open("w", encoding="utf-8") as stream,
        guarded(command, env=environment(home), cwd=home, stdout=stream) as process,
    ):
        while not _ended(process, 0.2):
            while_running()
    while_running()
    if reasons := told(log, STOPPED):
        raise RunFailed(f"{reasons[-1]} (Flower's log: {log})")
    if process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        # Flower puts its last words into a box, broken into lines.
        boxed = " ".join(line.strip(" │") for line in lines if line.startswith("│"))
        last = boxed or next((line.strip() for line in reversed(lines) if line.strip()), "no output")
        raise RunFailed(f"flwr run ended with code {process.returncode}: {last} ({log})")


def app_folder() -> Path:
    """Return the checkout, which is what Flower bundles; raises RunFailed where only a wheel is installed."""
    if not (ROOT / "pyproject.toml").is_file():
        raise RunFailed("Flower bundles the checkout of this project: install it with 'pip install -e .' from a clone")
    return ROOT


def told(log: Path, mark: str) -> list[str]:
    """Return what the server app said after a mark, oldest first.

    Only a line that begins with the mark counts: what clients send is quoted in other lines, and cannot begin one.
    """
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return [found.strip() for found in re.findall(rf"^[A-Z]+\s*:\s+{re.escape(mark)}(.*)\n", plain, re.MULTILINE)]


def run_id(log: Path) -> str | None:
    """Return the number Flower gave the run, as its log tells."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    found = re.search(r"Successfully started run (\d+)", text)
    return found[1] if found else None


def status(home: Path, number: str) -> Mapping[str, Any]:
    """Ask the SuperLink what became of a run: `status`, such as finished:completed, and `status-details`."""
    done = _flwr(home, "list", "--run-id", number, "--format", "json", "thornbed")
    try:
        return dict(json.loads(done.stdout)["runs"][0])
    except (ValueError, LookupError, TypeError):
        words = (done.stdout + done.stderr).split()
        return {"status": "unknown", "status-details": " ".join(words)[-200:]}


def stop(home: Path, number: str) -> bool:
    """Ask the SuperLink to stop a run that nobody waits for any more, and return whether it agreed."""
    return _flwr(home, "stop", number, "thornbed").returncode == 0


def _flwr(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = ["flwr", *words]
    try:  # in a session of its own: a second Ctrl-C is not for it
        return subprocess.run(
            command, env=environment(home), cwd=home, capture_output=True, text=True, timeout=30, check=False,
            start_new_session=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", "the SuperLink does not answer")


def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True
