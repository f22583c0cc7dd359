"""What tests share: `thornbed(...)` types a command here, `plug_in(...)` adds a plug-in, `house` is a copy of all."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take --nightly, without which tests marked so are left out."""
    parser.addoption("--nightly", action="store_true", help="run the tests marked nightly too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked nightly unless it was asked for, and let pytest count it as deselected."""
    if not config.getoption("--nightly"):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("nightly")])
        items[:] = [item for item in items if not item.get_closest_marker("nightly")]


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


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str, str, str], ModuleType]]:
    """Return a function that adds a plug-in, `(folder, name, text)`, as a user's new file would, and imports it."""
    from thornbed.flower_apps.settings import plugins

    plain, added, modules = plugins._available, dict[str, dict[str, str]](), list[str]()
    monkeypatch.setattr(plugins, "_available", lambda root, kind: {**plain(root, kind), **added.get(kind, {})})

    def add(folder: str, name: str, text: str) -> ModuleType:
        here = tmp_path / "plugged" / folder
        here.mkdir(parents=True, exist_ok=True)
        (here / f"{name}.py").write_text(text, encoding="utf-8")
        package = importlib.import_module(f"thornbed.{folder.replace('/', '.')}")
        if str(here) not in package.__path__:
            monkeypatch.setattr(package, "__path__", [*package.__path__, str(here)])
        [kind] = [kind for kind, folders in plugins.FOLDERS.items() if folder in folders]
        added.setdefault(kind, {})[name] = folder
        modules.append(f"{package.__name__}.{name}")
        return importlib.import_module(modules[-1])

    yield add
    for module in modules:
        sys.modules.pop(module, None)


def copy_of_the_house(copy: Path) -> Path:
    """Make a folder, without what git ignores: the checkout as a newcomer has it, to put new files in or to build."""
    root = Path(__file__).resolve().parent.parent
    copy.mkdir()
    for part in sorted(path for path in root.iterdir() if path.is_dir() and any(path.glob("*.py"))):
        shutil.copytree(part, copy / part.name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".gitignore", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, copy)
    return copy


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """Return a copy of the house, in which a test puts new files as a newcomer would."""
    return copy_of_the_house(tmp_path / "house")


def typed_in(house: Path, *words: object) -> Typed:
    """Run the command line of a copy of the house in a process of its own."""
    command = [sys.executable, "-m", "thornbed.experiments.cli", *map(str, words)]
    env = {**os.environ, "PYTHONPATH": str(house)}
    done = subprocess.run(command, cwd=house, env=env, capture_output=True, text=True, check=False)
    return Typed(done.returncode, done.stdout, done.stderr)


# What is ignored is ignored by children too: under nohup, or behind an & in a script, Ctrl-C and SIGHUP do nothing.
AS_IN_A_TERMINAL = """
import os, signal, sys
for sign in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
    signal.signal(sign, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def started(*words: object, **options: Any) -> subprocess.Popen[Any]:
    """Start Python in a process of its own, whose signals do what they do in a terminal however pytest was started.

    `words` are its arguments, `options` those of `subprocess.Popen`.
    """
    return subprocess.Popen([sys.executable, "-c", AS_IN_A_TERMINAL, *map(str, words)], **options)


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """Return the rounds of a run's metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_equal(one, other):
    """Check that two runs have the same figures in every round."""
    for left, right in zip(read_lines(one), read_lines(other), strict=True):
        assert left.get("sampled") == right.get("sampled")
        for name in FIGURES:
            assert left.get(name) == pytest.approx(right.get(name), abs=1e-6), (left["round"], name)


@pytest.fixture
def inverted():
    """Return a function that writes the files of inversions, each a dict of tensors and of what differs in its record.

    `images` (n, C, H, W) has to be there; `originals`, `snapshots` (k, n, C, H, W) and `snapshot_steps` need not.
    """

    def leave(folder, *inversions, **values):
        folder.mkdir(parents=True, exist_ok=True)
        tensors, records = {}, []
        for place, each in enumerate(inversions):
            stored = {name: value for name, value in each.items() if isinstance(value, torch.Tensor)}
            count = len(stored["images"])
            whole = {name: value.clone(memory_format=torch.contiguous_format) for name, value in stored.items()}
            tensors |= {f"{place}/{name}": value for name, value in whole.items()}
            records.append({
                "round": 1, "client": place, "num_samples": count, "local_steps": 1, "learning_rate": 1e-4,
                "labels": [0] * count, "true_labels": [0] * count, "psnr": [20.0] * count, "ssim": [0.5] * count,
                "lpips": None, "unscored": None, "loss": 0.01, "best_step": 180, "steps": 200,
                "seconds_per_step": 0.02, "together": 1, "failure": None,
                **{name: value for name, value in each.items() if name not in stored},
            })  # fmt: skip
        content = {
            "curious": "agic(steps=200)", "observed": "rounds 1", "seconds": 12.3, "peak_memory_mib": 512.0,
            "warnings": [], "lpips_missing": "LPIPS needs a file, which is not there", **values, "inversions": records,
        }  # fmt: skip
        (folder / "inversions.json").write_text(json.dumps(content))
        save_file(tensors, folder / "inversions.safetensors")
        return folder

    return leave
