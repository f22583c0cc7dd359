"""What every partition keeps to; a new file of tasks/partitions is covered without a word here."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import os
import pkgutil
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import thornbed.tasks.partitions

NAMES = sorted(
    module.name for module in pkgutil.iter_modules(thornbed.tasks.partitions.__path__) if module.name[0] != "_"
)
ROOT = Path(__file__).resolve().parents[2]


def function(name: str) -> Callable[..., list[np.ndarray]]:
    return getattr(importlib.import_module(f"thornbed.tasks.partitions.{name}"), name)


def labels_of(num_rows: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 10, size=num_rows)


def fingerprint(parts: list[np.ndarray]) -> str:
    return hashlib.sha256(b"|".join(part.tobytes() for part in parts)).hexdigest()


def test_the_folder_is_not_empty() -> None:
    assert {"iid", "dirichlet", "shards"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_line_is_a_sentence_and_the_paper_is_named(name: str) -> None:
    first, blank, rest = (inspect.getdoc(importlib.import_module(f"thornbed.tasks.partitions.{name}")) or "").split(
        "\n", 2
    )
    assert first.endswith(".")
    assert blank == ""
    assert rest.startswith(("Paper: ", "Source: "))


@pytest.mark.parametrize("name", NAMES)
def test_labels_number_and_seed_come_first_and_options_are_keywords_with_types_and_defaults(name: str) -> None:
    labels, number, seed, *others = inspect.signature(function(name)).parameters.values()
    assert (labels.name, number.name, seed.name) == ("labels", "num_partitions", "seed")
    for option in others:
        assert option.kind is option.KEYWORD_ONLY
        assert option.default is not option.empty
        assert option.annotation is not option.empty


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("num_rows", "num_partitions"), [(1000, 10), (1437, 20), (997, 7), (50, 1)])
def test_every_row_goes_to_exactly_one_client(name: str, num_rows: int, num_partitions: int) -> None:
    parts = function(name)(labels_of(num_rows), num_partitions, 3)
    assert len(parts) == num_partitions
    for part in parts:
        assert isinstance(part, np.ndarray)
        assert part.dtype == np.int64
        assert len(part) > 0
        assert bool((np.diff(part) > 0).all())
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(num_rows))


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_and_nothing_else_decides(name: str) -> None:
    labels = labels_of(600)
    given = labels.copy()
    first = fingerprint(function(name)(labels, 6, 1))
    np.random.default_rng(5).random()
    assert fingerprint(function(name)(torch.from_numpy(labels), 6, 1)) == first
    assert fingerprint(function(name)(labels.astype(np.int32), 6, 1)) == first
    assert fingerprint(function(name)(labels, 6, 2)) != first
    assert np.array_equal(labels, given)


@pytest.mark.parametrize("name", NAMES)
def test_global_randomness_is_left_alone(name: str) -> None:
    before = torch.get_rng_state(), repr(np.random.mtrand._rand._bit_generator.state), random.getstate()
    function(name)(labels_of(300), 5, 1)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (repr(np.random.mtrand._rand._bit_generator.state), random.getstate())


def test_another_process_draws_the_same_and_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    program = (
        "import importlib, json, hashlib, numpy as np\n"
        "labels = np.random.default_rng(0).integers(0, 10, size=600)\n"
        "found = {}\n"
        f"for name in {NAMES!r}:\n"
        "    divide = getattr(importlib.import_module('thornbed.tasks.partitions.' + name), name)\n"
        "    parts = divide(labels, 6, 2**32 - 1)\n"
        "    found[name] = hashlib.sha256(b'|'.join(part.tobytes() for part in parts)).hexdigest()\n"
        "print(json.dumps(found))\n"
    )
    # MPLCONFIGDIR: flwr-datasets imports matplotlib, which keeps a list of the fonts it found.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_"))} | {
        "HOME": str(tmp_path / "home"),
        "MPLCONFIGDIR": str(tmp_path / "matplotlib"),
        "PYTHONHASHSEED": "7",
    }
    (tmp_path / "home").mkdir()
    ended = subprocess.run([sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    here = {name: fingerprint(function(name)(labels_of(600), 6, 2**32 - 1)) for name in NAMES}
    assert json.loads(ended.stdout) == here
    assert ended.stderr == ""
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_hundred_clients_of_fifty_thousand_rows_are_quick(name: str) -> None:
    labels = labels_of(50_000)
    start = time.process_time()  # the time of this process: others on the machine do not count
    parts = function(name)(labels, 100, 0)
    assert time.process_time() - start < 4
    assert sum(map(len, parts)) == 50_000


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_divided_is_refused_with_the_numbers(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} needs .* 11 partitions, \d+ in all: there are 10$"):
        function(name)(labels_of(10), 11, 0)
    with pytest.raises(ValueError, match=f"{name} needs at least one partition: num_partitions = 0"):
        function(name)(labels_of(10), 0, 0)
    with pytest.raises(ValueError, match=rf"{name} takes integer labels \(N,\): got float64 \(10,\)"):
        function(name)(labels_of(10).astype(np.float64), 2, 0)
    with pytest.raises(ValueError, match=rf"{name} takes integer labels \(N,\): got int64 \(5, 2\)"):
        function(name)(labels_of(10).reshape(5, 2), 2, 0)
