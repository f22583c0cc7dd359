"""What every multitask task keeps to; a new file of its folder is covered without a word here, unless it needs data.

A task that reads files gets small made ones from MADE below: add how to make them there.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

import thornbed.tasks.multitask
from thornbed.tasks.mocha.solving import errors_by_node
from thornbed.tasks.multitask import Multitask
from thornbed.tasks.multitask._parkinsons import FEATURES
from thornbed.tasks.sources import MissingData

NAMES = sorted(
    module.name for module in pkgutil.iter_modules(thornbed.tasks.multitask.__path__) if module.name[0] != "_"
)


def fields(folder: Path) -> None:
    """Make landmine.mat with three fields."""
    rng = np.random.default_rng(0)
    cells = {"feature": np.empty((1, 3), dtype=object), "label": np.empty((1, 3), dtype=object)}
    for number in range(3):
        cells["feature"][0, number] = rng.normal(size=(20 + number, 9))
        cells["label"][0, number] = (np.arange(20 + number) % 5 == 0).astype(np.uint8)[:, None]
    scipy.io.savemat(folder / "landmine.mat", cells)


def patients(folder: Path) -> None:
    """Make parkinsons_updrs.csv with four patients."""
    rng = np.random.default_rng(0)
    lines = [",".join(["subject#", "age", "sex", "test_time", "motor_UPDRS", "total_UPDRS", *FEATURES])]
    for row in range(48):
        values = rng.normal(size=19)
        lines.append(",".join([str(1 + row // 12), "70", "0", *(f"{value:.4f}" for value in values)]))
    (folder / "parkinsons_updrs.csv").write_text("\n".join(lines) + "\n")


def phones(folder: Path) -> None:
    """Make the rebuilt table with three people and four features, the last of which never moves."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(36, 4)).astype(np.float32)
    x[:, 3] = -1
    activities = np.array(["WALKING", "SITTING", "LAYING"])
    names = np.array(["a", "b", "b", "c"])
    arrays = {"y": np.arange(36) % 3, "subject": 1 + np.arange(36) % 9 // 3}
    np.savez(folder / "uci_har_561_rebuilt.npz", x=x, activities=activities, feature_names=names, **arrays)


def table(folder: Path) -> None:
    """Make nodes.csv with two nodes."""
    rng = np.random.default_rng(0)
    lines = ["node,target,a,b", *(f"n{row % 2},{row},{rng.normal():.4f},{rng.normal():.4f}" for row in range(20))]
    (folder / "nodes.csv").write_text("\n".join(lines) + "\n")


MADE: dict[str, Callable[[Path], None]] = {
    "landmine": fields,
    "parkinsons_total": patients,
    "parkinsons_motor": patients,
    "har": phones,
    "node_table": table,
}
NODES = {"landmine": 3, "parkinsons_total": 4, "parkinsons_motor": 4, "har": 3, "node_table": 2, "digit_nodes": 10}


def function(name: str) -> Callable[..., Multitask]:
    return getattr(importlib.import_module(f"thornbed.tasks.multitask.{name}"), name)


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path | None:
    name = request.getfixturevalue("name")
    if name not in MADE:
        return None
    MADE[name](tmp_path)
    return tmp_path


def test_the_folder_is_not_empty() -> None:
    assert set(NODES) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_line_is_a_sentence_and_the_source_is_named(name: str) -> None:
    first, blank, rest = (inspect.getdoc(importlib.import_module(f"thornbed.tasks.multitask.{name}")) or "").split(
        "\n", 2
    )
    assert first.endswith(".")
    assert blank == ""
    assert rest.startswith(("Paper: ", "Source: "))


@pytest.mark.parametrize("name", NAMES)
def test_the_folder_comes_first_and_options_are_keywords_with_types_and_defaults(name: str) -> None:
    first, *others = inspect.signature(function(name)).parameters.values()
    assert first.name == "data_dir"
    for option in others:
        assert option.kind is option.KEYWORD_ONLY
        assert option.default is not option.empty
        assert option.annotation is not option.empty
    assert {"split", "test_share", "scaling", "intercept", "leave_out"} <= {option.name for option in others}


@pytest.mark.parametrize("name", NAMES)
def test_nodes_are_scaled_together_and_split_apart(name: str, folder: Path | None) -> None:
    task = function(name)(folder, scaling="zscore")
    assert len(task.nodes) == NODES.get(name, len(task.nodes))
    assert len(set(task.names)) == len(task.nodes)
    assert task.features[-1] == "intercept"
    pooled = np.concatenate([points.x for points in task.train])
    np.testing.assert_allclose(pooled[:, :-1].mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(pooled[:, :-1].std(axis=0), 1, atol=1e-9)
    for node in task.nodes:
        assert 0.1 < len(node.test) / (len(node.test) + len(node.train)) < 0.4
        if task.loss == "hinge":
            assert set(node.train.y) == {-1, 1}


@pytest.mark.parametrize("name", NAMES)
def test_a_split_is_one_of_many_and_always_the_same(name: str, folder: Path | None) -> None:
    first, again, other = (function(name)(folder, split=split, scaling="none") for split in (0, 0, 1))
    for one, two in zip(first.nodes, again.nodes):
        assert np.array_equal(one.train.x, two.train.x)
        assert np.array_equal(one.test.y, two.test.y)
    assert any(not np.array_equal(one.test.x, two.test.x) for one, two in zip(first.nodes, other.nodes))
    for one, two in zip(first.nodes, other.nodes):  # the same rows, in other parts
        rows = [np.sort(np.concatenate([node.train.x, node.test.x]), axis=0) for node in (one, two)]
        assert np.array_equal(*rows)


@pytest.mark.parametrize("name", NAMES)
def test_validation_leaves_the_test_rows_aside(name: str, folder: Path | None) -> None:
    task, part = function(name)(folder), function(name)(folder, validation=True)
    for node, other in zip(task.nodes, part.nodes):
        rows = {tuple(row) for row in node.train.x}
        assert len(other.train) + len(other.test) == len(node.train)
        assert all(tuple(row) in rows for row in np.concatenate([other.train.x, other.test.x]))


@pytest.mark.parametrize("name", NAMES)
def test_pooled_is_one_node_with_the_points_of_all(name: str, folder: Path | None) -> None:
    task, pooled = function(name)(folder), function(name)(folder, pooled=True)
    [node] = pooled.nodes
    assert np.array_equal(node.train.x, np.concatenate([each.x for each in task.train]))
    assert np.array_equal(node.test.y, np.concatenate([each.y for each in task.test]))
    # Its error is that of one model in every node, as a task of separate nodes counts it.
    weights = np.random.default_rng(0).normal(size=(len(task.features), 1))
    apart = errors_by_node(task.nodes, np.repeat(weights, len(task.nodes), axis=1), task.loss)
    assert errors_by_node(pooled.nodes, weights, task.loss).tolist() == pytest.approx([apart.mean()])


@pytest.mark.parametrize("name", NAMES)
def test_scaling_and_intercept_are_what_is_asked_for(name: str, folder: Path | None) -> None:
    plain = function(name)(folder, scaling="none", intercept=False)
    assert "intercept" not in plain.features
    boxed = np.concatenate([points.x for points in function(name)(folder, scaling="minmax", intercept=False).train])
    np.testing.assert_allclose(boxed.min(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(boxed.max(axis=0), 1, atol=1e-12)
    with pytest.raises(ValueError, match=r"0 <= split < 2\*\*32: test_share = 1"):
        function(name)(folder, test_share=1.0)
    with pytest.raises(ValueError, match='"zscore", "minmax" or "none", not \'log\''):
        function(name)(folder, scaling="log")


def legacy_state() -> str:
    return str(np.random.get_state())  # noqa: NPY002 - whether it moves is the question


@pytest.mark.parametrize("name", NAMES)
def test_global_randomness_is_left_alone(name: str, folder: Path | None) -> None:
    before = random.getstate(), legacy_state(), torch.random.get_rng_state()
    function(name)(folder)
    assert random.getstate() == before[0]
    assert legacy_state() == before[1]
    assert torch.equal(torch.random.get_rng_state(), before[2])


@pytest.mark.parametrize("name", sorted(MADE))
def test_missing_data_are_explained(name: str, tmp_path: Path) -> None:
    for given, why in ((None, "no folder was named with --data-dir"), (tmp_path, f"{tmp_path} has no ")):
        with pytest.raises(MissingData) as missing:
            function(name)(given)
        assert str(missing.value).startswith(f"{name} needs its data, but {why}")
        assert "into that folder" in str(missing.value) or "put a table there" in str(missing.value)
