"""Records prove themselves: what has changed since it was written is refused by whatever goes on from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from thornbed.protocol.tensor_files import load_tensors, save_tensors


def _flip(path: Path, bit: int = 3) -> None:
    """Turn over one bit of the last tensor in a file."""
    content = bytearray(path.read_bytes())
    content[-8] ^= 1 << bit
    path.write_bytes(bytes(content))


def _edit(folder: Path, name: str, value: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["settings"][name] = value
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _without(path: Path, start: str) -> None:
    """Take the tensors whose names begin so out of a file, and leave its texts."""
    with safe_open(path, framework="pt") as stored:
        texts = stored.metadata()
    left = {name: tensor for name, tensor in load_file(path).items() if not name.startswith(start)}
    assert len(left) < len(load_file(path))
    save_file(left, path, texts)


def _one_round_less(path: Path) -> None:
    """Say that a checkpoint has another round behind it."""
    with safe_open(path, framework="pt") as stored:
        texts = dict(stored.metadata())
    texts["rounds_done"] = str(int(texts["rounds_done"]) - 1)
    save_file(load_file(path), path, texts)


def _unproven(path: Path) -> None:
    with safe_open(path, framework="pt") as stored:
        texts = {name: text for name, text in stored.metadata().items() if name != "sha256"}
    save_file(load_file(path), path, texts)


def _swap(made: Path, source: str, target: str) -> None:
    shutil.copy(made / source, made / target)


def _state(made: Path, client: int, server_round: int) -> Path:
    return made / "vertical" / "clients" / f"client-{client}-round-{server_round}.safetensors"


def _of_another_round(path: Path) -> None:
    tensors, texts = load_tensors(path)
    save_tensors(path, tensors, {**texts, "after": "1"})


def _of_another_run(path: Path) -> None:
    tensors, texts = load_tensors(path)
    save_tensors(path, tensors, {**texts, "run": "0" * 64})


@pytest.fixture(scope="module")
def once(tmp_path_factory) -> Path:
    """A folder of finished runs, made once: with memory, of another seed, with client state, recorded, of queries."""
    from rich.console import Console

    from thornbed.experiments.runs import launch
    from thornbed.flower_apps.settings import settings_from

    parent, silent = tmp_path_factory.mktemp("made"), Console(quiet=True)
    images: dict[str, object] = {"task": "digits(num_train=60)", "model": "cnn(width=2)", "partition": "iid"}
    images |= {"num_clients": 3, "rounds": 2, "strategy": "centered_clipping(radius=1.0)"}
    agents: dict[str, object] = {"task": "digits(num_train=300)", "num_clients": 4, "batch_size": 100, "rounds": 2}
    kinds: dict[str, dict[str, object]] = {
        "run": images,
        "other": {**images, "seed": 1},
        "read": {**images, "optimizer": "sgd", "batch_size": 4, "strategy": "fedavg", "record": str(parent / "kept")},
        "vertical": {**agents, "strategy": "split_nn"},
        "queries": {**agents, "strategy": "collaborative_inference", "defense": "copur"},
        "queried": {**agents, "strategy": "collaborative_inference", "defense": "copur", "seed": 1},
    }
    for name, each in kinds.items():
        launch.run(launch.prepare(settings_from({**each, "output": str(parent / name)})), silent, silent)
    return parent


@pytest.fixture
def made(once, tmp_path) -> Path:
    """A copy of them; a run's own path is in its config.json, and is none of what it computes."""
    return Path(shutil.copytree(once, tmp_path / "made"))


GO_ON = ("run", "--resume", "--rounds", 3, "--output")
ANOTHER = "is of a run with other settings"
CHANGED = "it is not as it was written: its"


@pytest.mark.parametrize(
    ("damage", "run", "sentence"),
    [
        (lambda at: _flip(at / "run/checkpoint.safetensors"), "run", f"checkpoint.safetensors is damaged ({CHANGED}"),
        (lambda at: _without(at / "run/checkpoint.safetensors", "memory/"), "run", CHANGED),
        (lambda at: _one_round_less(at / "run/checkpoint.safetensors"), "run", CHANGED),
        (lambda at: _unproven(at / "run/checkpoint.safetensors"), "run", "it has no digest of what was written"),
        (lambda at: _edit(at / "run", "seed", 7), "run", f"config.json is damaged ({CHANGED}"),
        (lambda at: _edit(at / "run", "learning_rate", 0.5), "run", f"config.json is damaged ({CHANGED}"),
        (lambda at: _swap(at, "other/checkpoint.safetensors", "run/checkpoint.safetensors"), "run", ANOTHER),
        (lambda at: _swap(at, "other/config.json", "run/config.json"), "run", ANOTHER),
        (lambda at: _flip(_state(at, 1, 2)), "vertical", CHANGED),
        (lambda at: shutil.copy(_state(at, 0, 2), _state(at, 1, 2)), "vertical", "is another client's"),
        (lambda at: _of_another_round(_state(at, 1, 2)), "vertical", "is of another round"),
        (lambda at: _of_another_run(_state(at, 1, 2)), "vertical", "is another run's"),
    ],
)
def test_a_run_does_not_go_on_from_what_has_changed(
    damage: Callable[[Path], object], run: str, sentence: str, made, thornbed
):
    damage(made)
    before = {path: path.read_bytes() for path in (made / run).rglob("*") if path.is_file() and path.stat().st_size}
    typed = thornbed(*GO_ON, made / run)
    assert (typed.code, sentence in typed.sentence) == (2, True), typed.err
    assert {path: path.read_bytes() for path in before} == before


def test_it_goes_on_from_what_has_not(made, thornbed):
    for run in ("run", "vertical"):
        typed = thornbed(*GO_ON, made / run)
        assert typed.code == 0, typed.err


@pytest.mark.parametrize(
    ("damage", "words", "sentence"),
    [
        (
            lambda at: _flip(at / "run/model.safetensors"),
            lambda at: ("run", "--model", "cnn(width=2)", "--start-from", at / "run/model.safetensors"),
            f"damaged ({CHANGED}",
        ),
        (
            lambda at: _flip(at / "queries/model.safetensors"),
            lambda at: ("certify", at / "queries", "--silent", "0"),
            f"model.safetensors is damaged ({CHANGED}",
        ),
        (
            lambda at: _edit(at / "queries", "seed", 7),
            lambda at: ("certify", at / "queries", "--silent", "0"),
            f"config.json is damaged ({CHANGED}",
        ),
        (
            lambda at: _swap(at, "queried/model.safetensors", "queries/model.safetensors"),
            lambda at: ("certify", at / "queries", "--silent", "0"),
            ANOTHER,
        ),
        (
            lambda at: _swap(at, "queried/answers.npz", "queries/answers.npz"),
            lambda at: ("certify", at / "queries"),
            f"answers.npz {ANOTHER}",
        ),
        (
            lambda at: _flip(next(path for path in sorted((at / "kept").iterdir()) if "originals" not in path.name)),
            lambda at: ("invert", at / "kept", "--with", "agic(steps=2, labels='counts')"),
            f"is no recording, or damaged ({CHANGED}",
        ),
        (
            lambda at: _edit(at / "run", "seed", 7),
            lambda at: ("show", at / "run"),
            f"config.json is damaged ({CHANGED}",
        ),
    ],
)
def test_neither_does_whatever_else_reads_it(
    damage: Callable[[Path], object],
    words: Callable[[Path], tuple],
    sentence: str,
    made,
    thornbed,
    tmp_path,
    monkeypatch,
):
    monkeypatch.chdir(tmp_path)
    damage(made)
    typed = thornbed(*words(made))
    assert (typed.code, sentence in typed.sentence) == (2, True), typed.err


def test_a_file_of_others_without_a_digest_can_be_begun_with(made, thornbed, tmp_path):
    save_file(load_file(made / "run/model.safetensors"), tmp_path / "mine.safetensors")
    words = ["--task", "digits(num_train=60)", "--model", "cnn(width=2)", "--num-clients", 3, "--rounds", 0]
    typed = thornbed("run", *words, "--start-from", tmp_path / "mine.safetensors", "--output", tmp_path / "begun")
    assert typed.code == 0, typed.err
