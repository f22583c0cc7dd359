"""What tests of the command line share: `thornbed(...)` types a command in this process."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

FIGURES = ("accuracy", "loss", "attack_success_rate", "train_loss")


@dataclass
class Typed:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        return re.sub(r"\s+", " ", self.err).strip()


@pytest.fixture
def thornbed(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Typed]:
    """Return a function that runs the command line as a user types it, without the cost of a new process."""
    from thornbed.experiments.cli import main

    def type_in(*words: object) -> Typed:
        monkeypatch.setattr(sys, "argv", ["thornbed", *map(str, words)])
        handlers = {sign: signal.getsignal(sign) for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        with pytest.raises(SystemExit) as left:
            main()
        for sign, handler in handlers.items():
            signal.signal(sign, handler)
        captured = capfd.readouterr()
        return Typed(int(left.value.code or 0), captured.out, captured.err)

    return type_in


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """Return the rounds of a run's metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_equal(one, other):
    """Check that two runs have the same figures in every round."""
    for left, right in zip(read_lines(one), read_lines(other), strict=True):
        assert left.get("sampled") == right.get("sampled")
        for name in FIGURES:
            assert left.get(name) == pytest.approx(right.get(name), abs=1e-6), (left["round"], name)
