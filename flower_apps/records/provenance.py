"""Where a run comes from: what was typed, and the code and packages that it stands on."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from thornbed.flower_apps.settings import Settings
from thornbed.flower_apps.settings.plugins import ROOT

PACKAGES = ("thornbed", "flwr", "torch", "torchvision", "numpy", "numba", "flwr-datasets", "safetensors")


def origin() -> str:
    """Return who starts a run, as JSON: what was typed, and the revision of the checkout.

    It travels with the settings: the records are written by whatever process Flower started, whose own command line
    says nothing of the user's, and may hold Flower's passwords.
    """
    return json.dumps({"argv": [Path(sys.argv[0]).name, *sys.argv[1:]], "git": revision()})


def versions(settings: Settings) -> dict[str, str]:
    """Return what a run stands on: packages, Python, platform, and the revision of the checkout (empty without)."""
    known = str(json.loads(settings.origin).get("git", "")) if settings.origin else revision()
    return {"python": platform.python_version(), "platform": platform.platform(), "git": known, **installed()}


def installed() -> dict[str, str]:
    """Return the version of every package that figures depend on."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def revision() -> str:
    """Return the git revision of the checkout, `-dirty` where files were changed; empty where there is none."""
    if not (ROOT / ".git").exists():  # a bundle of Flower's below somebody's repository is not of that repository
        return ""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
