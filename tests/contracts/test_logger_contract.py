"""What every logger keeps to; a new file of flower_apps/loggers is covered without a word here."""

from __future__ import annotations

import importlib
import inspect
import json
import random
import subprocess
import sys
import tomllib
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from thornbed.flower_apps.loggers import Logger, figures, missing_package
from thornbed.flower_apps.settings import Settings, plugins

ROOT = Path(__file__).resolve().parent.parent.parent
NAMES = sorted(plugins.available("logger"))
every_logger = pytest.mark.parametrize("name", NAMES)
# What a run writes: the model before the first round, a round with a defense, one in which hardly anything is known.
LINES: tuple[Mapping[str, Any], ...] = (
    {"round": 0, "accuracy": 0.1, "loss": 2.3, "attack_success_rate": None, "seconds": 0.5},
    {
        "round": 1,
        "accuracy": 0.7,
        "loss": 0.9,
        "attack_success_rate": 0.25,
        "seconds": 1.5,
        "sampled": [0, 2],
        "dropped": [{"client": 2, "reason": "no reply in time"}],
        "defense": {"trimmed_share": 0.5, "selected": [0, 1], "scores": [0.5, 1.0], "clip_norm": 3},
        "defense_acted": True,
    },
    {"round": 2, "accuracy": 0.8, "loss": None, "attack_success_rate": None, "train_loss": None, "defense": {}},
)


def logger_called(name: str) -> Callable[..., Logger]:
    return plugins.find("logger", name)


def module_of(name: str) -> ModuleType:
    return importlib.import_module(logger_called(name).__module__)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Logger]]:
    """Return a maker of loggers of a run in `run`, whose folder is not the working directory; closes what it made."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (tmp_path / "run").mkdir()
    loggers: list[Logger] = []

    def make(name: str) -> Logger:
        if package := missing_package(module_of(name)):
            pytest.skip(f"{name} needs the package {package}")
        loggers.append(logger_called(name)(tmp_path / "run", Settings(origin='{"who": "a test"}')))
        return loggers[-1]

    yield make
    for logger in loggers:
        logger.close()


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_the_folder_is_not_empty() -> None:
    assert {"tensorboard", "wandb"} <= set(NAMES)


@every_logger
def test_folder_and_settings_come_first_and_options_are_keywords_with_defaults(name: str) -> None:
    folder, settings, *options = inspect.signature(logger_called(name)).parameters.values()
    assert (folder.name, settings.name) == ("folder", "settings")
    assert all(each.kind is each.POSITIONAL_OR_KEYWORD for each in (folder, settings))
    assert all(option.kind is option.KEYWORD_ONLY and option.default is not option.empty for option in options)
    hints = typing.get_type_hints(logger_called(name))
    assert hints["return"] is Logger
    # the command line reads the types of the options
    assert {option.name for option in options} <= set(hints)


@every_logger
def test_the_first_line_is_a_sentence_and_its_source_is_named(name: str) -> None:
    first, blank, rest = (inspect.getdoc(module_of(name)) or "").split("\n", 2)
    assert first.endswith(".")
    assert blank == ""
    assert rest.startswith(("Paper: ", "Source: "))


@every_logger
def test_the_package_that_it_needs_is_what_the_extra_of_its_name_installs(name: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    if (package := getattr(module_of(name), "PACKAGE", None)) is not None:
        assert any(requirement.startswith(package) for requirement in extras[name])


def test_none_imports_its_package_before_it_is_used() -> None:
    """Listings and checks import the module where nobody has installed the package."""
    blocked = [package for name in NAMES if (package := getattr(module_of(name), "PACKAGE", None))]
    modules = [logger_called(name).__module__ for name in NAMES]
    code = (
        f"import importlib, sys; sys.modules.update(dict.fromkeys({blocked}));"
        f"[importlib.import_module(module) for module in {modules}]"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


@every_logger
def test_it_takes_every_line_of_a_run_and_changes_none(name: str, made: Callable[[str], Logger]) -> None:
    logger, before = made(name), json.dumps(LINES)
    for line in LINES:
        logger.log(line)
    assert json.dumps(LINES) == before


@every_logger
def test_what_it_keeps_lies_in_the_folder_of_the_run(name: str, made: Callable[[str], Logger], tmp_path: Path) -> None:
    logger = made(name)
    for line in LINES:
        logger.log(line)
    assert files(tmp_path)
    assert files(tmp_path) == files(tmp_path / "run")


@every_logger
def test_a_run_that_goes_on_logs_into_the_same_folder(name: str, made: Callable[[str], Logger], tmp_path: Path) -> None:
    first = made(name)
    first.log(LINES[0])
    first.close()
    kept = files(tmp_path / "run")
    second = made(name)
    second.log(LINES[1])
    assert kept <= files(tmp_path / "run")


@every_logger
def test_it_may_be_closed_twice_and_without_a_round(name: str, made: Callable[[str], Logger]) -> None:
    """A run that fails in its first round is closed too."""
    made(name).close()


@every_logger
def test_global_randomness_is_left_alone(name: str, made: Callable[[str], Logger]) -> None:
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    logger = made(name)
    for line in LINES:
        logger.log(line)
    logger.close()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002


@every_logger
def test_options_that_are_one_of_some_words_take_no_other(name: str) -> None:
    for option, hint in typing.get_type_hints(logger_called(name)).items():
        if typing.get_origin(hint) is typing.Literal:
            with pytest.raises(plugins.BadSpec, match=f"{name} takes {option}: .*, not 'loud'"):
                plugins.load("logger", plugins.Spec(name, {option: "loud"}))


def test_figures_are_the_numbers_of_a_line_and_those_of_the_defense() -> None:
    assert figures(LINES[1]) == {
        "accuracy": 0.7,
        "loss": 0.9,
        "attack_success_rate": 0.25,
        "seconds": 1.5,
        "defense/trimmed_share": 0.5,
        "defense/clip_norm": 3.0,
    }
    assert figures(LINES[2]) == {"accuracy": 0.8}
