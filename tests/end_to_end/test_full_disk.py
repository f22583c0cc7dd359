"""A full disk is one sentence, whichever write meets it, and a run goes on from what was kept before."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from thornbed.protocol import whole_files
from thornbed.protocol.tensor_files import SMALL, load_tensors, save_tensors

ROUNDS = 2
RUNS = {
    "images": ["--task", "digits(num_train=60)", "--model", "cnn(width=2)", "--num-clients", 3, "--partition", "iid"],
    "vertical": ["--task", "digits(num_train=60)", "--strategy", "split_nn", "--num-clients", 2, "--batch-size", 30],
}


class FullDisk:
    """A disk on which a number of files and folders can still be brought to, and nothing more."""

    def __init__(self, room: int, number: int = errno.ENOSPC) -> None:
        self.room, self.number, self.asked = room, number, 0

    def sync(self, path: Path) -> None:
        self.asked += 1
        if self.asked > self.room:
            raise OSError(self.number, os.strerror(self.number), str(path))


@pytest.mark.parametrize("kind", RUNS)
def test_whichever_write_finds_no_room_the_run_says_so_and_goes_on_later(kind, thornbed, tmp_path, monkeypatch):
    words = ["run", *RUNS[kind], "--rounds", ROUNDS]
    whole, room = FullDisk(10**6), 0
    monkeypatch.setattr(whole_files, "sync", whole.sync)
    assert thornbed(*words, "--output", tmp_path / "whole").code == 0
    expected = load_tensors(tmp_path / "whole" / "model.safetensors")[0]
    assert whole.asked > 10
    for room in range(0, whole.asked, 3 if kind == "images" else 7):
        output = tmp_path / f"room-{room}"
        monkeypatch.setattr(whole_files, "sync", FullDisk(room).sync)
        typed = thornbed(*words, "--output", output)
        assert (typed.code, "Traceback" in typed.err) == (1, False), typed.err
        said = " cannot be written (No space left on device); make room, and go on with: thornbed run --resume "
        assert f"{said}--output {output}" in typed.sentence, (room, typed.err)
        assert f"thornbed: {output}" in typed.sentence
        assert not list(output.rglob("*.part"))
        monkeypatch.setattr(whole_files, "sync", whole.sync)
        resumed = ["--resume"] if (output / "config.json").exists() else []
        typed = thornbed(*words, *resumed, "--output", output)
        assert typed.code == 0, (room, typed.err)
        found = load_tensors(output / "model.safetensors")[0]
        assert all((found[name] == tensor).all() for name, tensor in expected.items())


def test_other_commands_say_it_too(thornbed, tmp_path, monkeypatch):
    run, target = tmp_path / "run", tmp_path / "pages"
    assert thornbed("run", *RUNS["images"], "--rounds", 1, "--output", run).code == 0
    monkeypatch.setattr(whole_files, "sync", FullDisk(0, errno.EROFS).sync)
    typed = thornbed("report", run, "--output", target)
    assert typed.code == 1
    assert f"{target} cannot be written (Read-only file system); make room, and give the same command" in typed.sentence


@pytest.mark.parametrize("size", [SMALL // 8, SMALL])
def test_a_real_limit_is_met_as_a_full_disk_is_and_leaves_nothing_half(size, tmp_path):
    """A file that may not grow beyond 64 KiB; small files of tensors are made in memory, and large ones are not."""
    code = f"""
import resource, signal, sys, torch
from pathlib import Path
from thornbed.protocol.tensor_files import save_tensors
from thornbed.protocol.whole_files import no_room
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    save_tensors(Path("kept.safetensors"), {{"w": torch.ones({size})}})
except OSError as failure:
    print(no_room(failure))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert "cannot be written (File too large)" in done.stdout, done.stderr
    assert not list(tmp_path.iterdir())


def test_what_was_there_before_stays_where_writing_fails(tmp_path, monkeypatch):
    import torch

    save_tensors(tmp_path / "kept.safetensors", {"w": torch.zeros(2)})
    monkeypatch.setattr(whole_files, "sync", FullDisk(0).sync)
    with pytest.raises(OSError, match="No space left"):
        save_tensors(tmp_path / "kept.safetensors", {"w": torch.ones(2)})
    assert [path.name for path in tmp_path.iterdir()] == ["kept.safetensors"]
    assert load_tensors(tmp_path / "kept.safetensors")[0]["w"].tolist() == [0, 0]
    assert whole_files.no_room(OSError(errno.ENOENT, "no")) == ""
    assert whole_files.no_room(ValueError()) == ""


def test_the_file_is_on_the_disk_before_it_takes_its_name_and_the_name_after(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        whole_files, "sync", lambda path: seen.append((path.name, (tmp_path / "a.txt").exists(), path.is_dir()))
    )
    whole_files.write_text(tmp_path / "a.txt", "é")
    assert [(name.endswith(".part"), there, folder) for name, there, folder in seen] == [
        (True, False, False),
        (False, True, True),
    ]
    whole_files.append_text(tmp_path / "a.txt", "b")
    assert seen[-1] == ("a.txt", True, False)
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "éb"
