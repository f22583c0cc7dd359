"""Pictures of one's own go into every scheme that takes pictures."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import read_lines


@pytest.fixture
def pictures(tmp_path) -> Path:
    """An archive of twelve classes of colour pictures of 64 x 64 pixels, each class of a shade of its own."""
    random = np.random.default_rng(0)
    arrays = {}
    for part, each in (("train", 20), ("test", 5)):
        y = np.repeat(np.arange(12), each)
        shades = random.integers(0, 40, (len(y), 64, 64, 3)) + 15 * y[:, None, None, None]
        arrays |= {f"x_{part}": shades.astype(np.uint8), f"y_{part}": y}
    np.savez(tmp_path / "mine.npz", **arrays)
    return tmp_path


MINE = ["--task", "image_archive(file='mine.npz')", "--rounds", 1, "--num-clients", 2, "--batch-size", 30]


@pytest.mark.parametrize(
    "words",
    [
        ["--model", "cnn(width=4)", "--attack", "pixel_trigger"],
        ["--model", "resnet20(width=8)", "--strategy", "median"],
        ["--strategy", "split_nn"],
        ["--strategy", "collaborative_inference", "--rounds", 2],
        [
            *("--model", "cnn(width=4)", "--optimizer", "sgd", "--batch-size", 2, "--local-epochs", 0.01),
            *("--curious", "inverting_gradients(steps=2, labels='counts')"),
        ],
    ],
)
def test_a_scheme_takes_them(words, pictures, thornbed, tmp_path):
    typed = thornbed("run", *MINE, *words, "--data-dir", pictures, "--output", tmp_path / "run")
    assert typed.code == 0, typed.err
    assert read_lines(tmp_path / "run")
    if "--curious" in words:
        assert (tmp_path / "run" / "inversions.png").is_file()


@pytest.mark.slow
def test_the_page_on_own_data_does_what_it_says(thornbed, tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "own_data.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    [script] = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(compile(script, "own_data.md", "exec"), {})
    [commands] = re.findall(r"```bash\n(.*?)```", page, flags=re.DOTALL)
    for number, command in enumerate(commands.replace("\\\n", " ").splitlines()):
        words = [word.replace("steps=50", "steps=2") for word in shlex.split(command)[1:]]
        typed = thornbed(*words, "--output", tmp_path / str(number))
        assert typed.code == 0, (command, typed.err)
