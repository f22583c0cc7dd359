"""Runs for the figures: small ones on digits, finished once for a whole module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from thornbed.experiments.runs import launch
from thornbed.experiments.runs.finished import FinishedRun
from thornbed.flower_apps.records.folder import Folder
from thornbed.flower_apps.resolving import resolve
from thornbed.flower_apps.settings import settings_from

SMALL = {
    "task": "digits(num_train=240, num_test=120)",
    "model": "mlp(hidden=(8,))",
    "num_clients": 4,
    "partition": "iid",
    "rounds": 2,
    "attack": "pixel_trigger(size=2)",
}


def settings_of(**changes: Any) -> Any:
    """Return resolved settings of a small run."""
    return resolve(settings_from({**SMALL, **changes}))


def finished(folder: Path, **changes: Any) -> FinishedRun:
    """Run a small federation into a folder and return it as a figure gets it."""
    settings = launch.prepare(settings_from({**SMALL, **changes, "output": str(folder)}))
    summary = launch.start(settings, lambda line: None)
    assert summary is not None
    return FinishedRun(name="small", settings=settings, metrics=summary["metrics"], folder=Folder(folder))


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A run in which nobody attacks and the attack is measured."""
    return finished(tmp_path_factory.mktemp("honest") / "run", num_malicious=0)


@pytest.fixture
def finish(tmp_path: Path) -> Callable[..., FinishedRun]:
    """Return what finishes a small run with some settings of its own."""
    return lambda **changes: finished(tmp_path / "run", **changes)
