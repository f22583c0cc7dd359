"""What every engine keeps to; a new file of flower_apps/engines is covered without a word here.

The inline engine is run for real; the others need processes of their own, and run in tests/end_to_end.
"""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from thornbed.experiments.runs.launch import prepare, start
from thornbed.flower_apps.records.folder import Folder
from thornbed.flower_apps.settings import ENGINES, BadSettings, Resolved, plugins, settings_from

NAMES = sorted(plugins.available("engine"))
every_engine = pytest.mark.parametrize("name", NAMES)
SMALL = {"model": "mlp(hidden=(8,))", "num_clients": 3, "partition": "iid", "rounds": 2, "device": "cpu"}


def engine_called(name: str) -> Callable[..., dict[str, Any] | None]:
    return plugins.find("engine", name)


def settings(output: Path, **more: object) -> Resolved:
    return prepare(settings_from({**SMALL, "output": str(output), **more}))


def test_the_engines_are_those_that_the_setting_takes() -> None:
    assert set(NAMES) == set(ENGINES)
    assert {"inline", "simulation", "deployment"} <= set(NAMES)


@every_engine
def test_it_takes_settings_and_a_listener_and_returns_a_summary_or_none(name: str) -> None:
    engine = engine_called(name)
    first, second = inspect.signature(engine).parameters.values()
    assert (first.name, second.name) == ("settings", "on_round")
    assert all(each.kind is each.POSITIONAL_OR_KEYWORD and each.default is each.empty for each in (first, second))
    hints = typing.get_type_hints(engine)
    assert hints["settings"] is Resolved
    assert hints["return"] in (dict[str, Any], dict[str, Any] | None)


@every_engine
def test_it_says_what_it_is_and_is_listed(name: str, thornbed: Callable[..., Any]) -> None:
    first, *rest = (inspect.getdoc(inspect.getmodule(engine_called(name))) or "").split("\n")
    assert first.endswith(".")
    assert not rest or rest[0] == ""
    assert (inspect.getdoc(engine_called(name)) or "").split("\n")[0].endswith(".")
    listed = {each["name"]: each for each in json.loads(thornbed("list", "engine", "--format", "json").out)}
    assert listed[name]["summary"] == first


def test_an_engine_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    for bad in ("teleport", "Inline", "inline(fast=True)", ""):
        with pytest.raises(BadSettings) as refused:
            settings(tmp_path / "run", engine=bad)
        assert str(refused.value) == f"--engine takes {', '.join(ENGINES)}, not {bad!r}"
    assert not (tmp_path / "run").exists()


def test_inline_tells_of_every_round_as_it_is_written_and_returns_what_it_kept(tmp_path: Path) -> None:
    made, lines = settings(tmp_path / "run"), []

    def on_round(line: Mapping[str, Any]) -> None:
        lines.append(dict(line))
        assert Folder(tmp_path / "run").lines() == lines  # what is told is in the records already

    summary = start(made, on_round)
    assert [line["round"] for line in lines] == [0, 1, 2]
    assert summary is not None
    assert summary["settings"] == made.model_dump()
    assert summary["rounds"] == 2
    assert summary["metrics"]["accuracy"] == lines[-1]["accuracy"]
    kept = Folder(tmp_path / "run").summary()
    assert kept is not None
    assert {key: kept[key] for key in summary if key != "settings"} == {
        key: value for key, value in summary.items() if key != "settings"
    }


def test_inline_gives_the_same_bytes_again_whatever_torch_has_drawn_before(tmp_path: Path) -> None:
    for name in ("one", "other"):
        torch.rand(3)
        before = torch.get_rng_state()
        start(settings(tmp_path / name, attack="gaussian(std=0.1)", num_malicious=1), lambda line: None)
        assert torch.equal(torch.get_rng_state(), before)
    one, other = (tmp_path / name / "model.safetensors" for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()


def test_a_complete_run_is_returned_and_not_made_again(tmp_path: Path) -> None:
    made, lines = settings(tmp_path / "run"), []
    first = start(made, lambda line: None)
    again = start(settings(tmp_path / "run", resume=True), lines.append)
    assert again is not None
    assert first is not None
    assert again["metrics"] == first["metrics"]
    assert lines == []
