"""Flower's own command line, started for a run: `flwr run` against a SuperLink, with everything of its own folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from flower_apps.config import Resolved, RunFailed
from flower_apps.federation import OnRound
from flower_apps.plugins import ROOT
from flower_apps.records import Folder, revision

STOPPED = "thornbed stopped: "


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
        # The bundle that Flower makes is no checkout; this is how its records still tell the revision.
        "THORNBED_REVISION": revision(),
    }


@contextmanager
def flower_home(address: str, root_certificates: str) -> Iterator[Path]:
    """Make a temporary Flower home that knows one SuperLink, `thornbed`."""
    with TemporaryDirectory(prefix="thornbed-") as name:
        home = Path(name)
        security = f"root-certificates = {json.dumps(root_certificates)}" if root_certificates else "insecure = true"
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "thornbed"\n\n[superlink.thornbed]\naddress = {json.dumps(address)}\n{security}\n'
        )
        yield home


def flwr_run(
    settings: Resolved, home: Path, log: Path, *options: str, while_running: Callable[[], None] = lambda: None
) -> None:
    """Start the run, follow it to its end, and keep Flower's log; raises RunFailed with the reason it logged.

    `while_running` is called a few times a second.
    """
    app = app_folder()
    config = home / "run.toml"
    config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.to_run_config().items()))
    command = ["flwr", "run", str(app), "thornbed", "--stream", "--run-config", str(config), *options]
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment(home), cwd=home)
        try:
            while not _ended(process, 0.2):
                while_running()
            while_running()
        except BaseException:
            process.terminate()
            _stop(home, log)
            raise
    text = log.read_text(encoding="utf-8", errors="replace")
    if reasons := re.findall(re.escape(STOPPED) + r"(.*)", text):
        raise RunFailed(f"{reasons[-1].strip()} (Flower's log: {log})")
    if process.returncode:
        last = [line.strip(" │") for line in text.splitlines() if line.strip(" │╭╰─╮╯")]
        raise RunFailed(f"flwr run ended with code {process.returncode}: {last[-1] if last else 'no output'} ({log})")


def app_folder() -> Path:
    """Return the checkout, which is what Flower bundles; raises RunFailed where only a wheel is installed."""
    if not (ROOT / "pyproject.toml").is_file():
        raise RunFailed("Flower bundles the checkout of this project: install it with 'pip install -e .' from a clone")
    return ROOT


def run_id(log: Path) -> str | None:
    """Return the number Flower gave the run, as its log tells."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    found = re.search(r"Successfully started run (\d+)", text)
    return found[1] if found else None


def _stop(home: Path, log: Path) -> None:
    """Ask the SuperLink to stop a run that nobody waits for any more."""
    if (number := run_id(log)) is not None:
        command = ["flwr", "stop", number, "thornbed"]
        subprocess.run(command, env=environment(home), cwd=home, capture_output=True, timeout=30, check=False)


def _ended(process: subprocess.Popen[bytes] | subprocess.Popen[str], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


class Follower:
    """Calls back with every new round of the records that another process writes."""

    def __init__(self, folder: Folder, on_round: OnRound) -> None:
        self._folder, self._on_round = folder, on_round
        self._seen = 0

    def look(self) -> None:
        """Tell about the rounds that came since the last look."""
        for line in self._folder.lines()[self._seen :]:
            self._seen += 1
            self._on_round(line)
