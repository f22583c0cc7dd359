"""Defaults are those that docs/defaults.md decides, one by one, and what the presets of the papers' pages take."""

import inspect
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import fields
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from thornbed.experiments.sweeps import presets
from thornbed.experiments.sweeps.plan import read_plan
from thornbed.flower_apps.resolving import resolve
from thornbed.flower_apps.settings import Resolved, Settings, plugins
from thornbed.flower_apps.settings.tuned import TAKEN, not_chosen, tuned, with_tuned
from thornbed.tasks import Defaults

PAGE = Path(__file__).resolve().parents[2] / "docs" / "defaults.md"
DECISIONS = {"constant", "neutral", "rule", "task", "strength", "effort", "required"}
OWN = {"seed", "data_dir", "output", "malicious_ids", "num_malicious"}  # who attacks, where, and drawn how, is said
SIZES = {"num_train", "num_test"}  # how much of the data is taken
TASKS = [task for task in plugins.available("task") if tuned(task).settings or tuned(task).options]


def tables(heading: str) -> list[list[str]]:
    """Return the rows of the tables below a heading of the page, without their first two lines."""
    text = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip().replace("\\|", "|") for cell in row] for row in found]
    starts = [number for number, row in enumerate(rows) if set(row[0]) <= set("-:")]
    return [row for number, row in enumerate(rows) if number not in starts and number + 1 not in starts]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_option_of_every_plugin_has_a_row_that_says_its_default() -> None:
    said: dict[tuple[str, str, str], str] = {}
    for kind, made, options, default, source, decision in tables("Every option"):
        assert source, (made, options)
        assert decision in DECISIONS, (made, options, decision)
        for each in names(made):
            for option in names(options):
                assert (kind, each, option) not in said, f"{kind} {each} {option} has two rows"
                said[kind, each, option] = "required" if decision == "required" else names(default)[0]
    actual = {
        (kind, name, option.name): "required" if option.default is None else option.default
        for kind in plugins.FOLDERS
        for name in plugins.available(kind)
        for option in plugins.describe(kind, name).options
    }
    assert said == actual


def test_what_a_task_was_tuned_with_has_a_row_that_says_where_it_is_from() -> None:
    said = {}
    for task, named, values, source in tables("Of one task"):
        assert source, task
        for each in names(task):
            for name in names(named):
                said[each, name] = dict(part.split("=", 1) for part in names(values))
    actual = {}
    for task in TASKS:
        found = tuned(task)
        actual |= {(task, name): {key: repr(each) for key, each in of.items()} for name, of in found.options.items()}
        for strategy, settings in found.settings.items():
            actual.setdefault((task, strategy), {}).update({key: repr(each) for key, each in settings.items()})
    assert said == actual


@pytest.mark.parametrize("task", TASKS)
def test_what_a_task_was_tuned_with_is_taken_by_what_it_names(task) -> None:
    found = tuned(task)
    for strategy, settings in found.settings.items():
        plugins.check_name("strategy", strategy)
        assert settings.keys() <= {field.name for field in fields(Defaults)}
    for name, options in found.options.items():
        [kind] = [kind for kind in TAKEN if name in plugins.available(kind)]
        plugins.load(kind, plugins.Spec(name, options))


def test_what_is_left_out_is_the_tasks_and_what_is_named_stays() -> None:
    settings = {"strategy": "mocha(lambda1=0.5)", "attack": "at2fl(mode='hybrid', balls=1)"}
    har = resolve(Settings(task="har", **settings))
    assert plugins.parse(har.strategy).options == {"lambda1": 0.5, "lambda2": 0.01}
    assert plugins.parse(har.attack).options == {"mode": "hybrid", "balls": 1, "iterations": 20, "start": "clean"}
    assert (har.local_epochs, har.rounds) == (20.0, 40)
    assert resolve(Settings(task="har", rounds=3, **settings)).rounds == 3
    other = resolve(Settings(task="digit_nodes", **settings))  # nothing was chosen on it
    assert (other.strategy, other.attack) == (settings["strategy"], settings["attack"])
    assert (other.local_epochs, other.rounds) == (10.0, 50)
    assert resolve(har) == har
    assert with_tuned("har", "none") == "none"


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({"strategy": "invariant"}, ["invariant: tau=0.2"]),
        ({"strategy": "invariant(tau=0.2)"}, []),
        ({"strategy": "invariant", "task": "phishing"}, []),
        ({"strategy": "collaborative_inference"}, ["collaborative_inference: head_epochs=30"]),  # the rest is computed
        ({"task": "digit_nodes", "strategy": "mocha(lambda2=0.1)"}, ["mocha: lambda1=0.001"]),
    ],
)
def test_what_nobody_has_chosen_on_a_task_is_told(settings, left) -> None:
    assert not_chosen(resolve(Settings(**settings))) == left


@cache
def beside(name: str, scale: str) -> dict[str, set[str]]:
    """Return where a preset's cells differ from plain runs of the same plug-ins, with the tasks; its axes left out."""
    cells = [cell.settings for cell in read_plan(presets.find(name), scale=scale).cells]
    values: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    plain: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for settings in cells:
        task, strategy = (plugins.parse(text).name for text in (settings.task, settings.strategy))
        given = {field: bare(getattr(settings, field)) for field in (*TAKEN, "task")}
        alone = resolve(Settings(**given, malicious_ids=settings.malicious_ids, num_malicious=settings.num_malicious))
        for one, found in ((settings, values), (alone, plain)):
            for place, value in places(one):
                found[task, "" if place.startswith("attack.") else strategy, place].add(value)
    found = defaultdict(set)
    for (task, strategy, place), here in values.items():
        there = plain[task, strategy, place]
        if len(here) == 1 and here != there:
            found[place].add(task)
    return found


def bare(text: str) -> str:
    """Return the names of specs alone, with who carries out an attack: one part without an option is none."""
    specs = plugins.parse_sum(text)
    kept = [
        plugins.Spec(spec.name, {key: spec.options[key] for key in ("agents",) if key in spec.options})
        for spec in specs
    ]
    return " + ".join(map(str, kept)) or "none"


def places(settings: Resolved) -> Iterator[tuple[str, str]]:
    """Yield each setting, and of settings that are specs each option, with its value."""
    for field in Settings.model_fields:
        value = getattr(settings, field)
        if field not in (*TAKEN, "task"):
            if field not in OWN:
                yield field, repr(value)
            continue
        for spec in plugins.parse_sum(value):
            signature = inspect.signature(plugins.find(field, spec.name)).parameters.values()
            options: dict[str, Any] = {each.name: each.default for each in signature if each.kind is each.KEYWORD_ONLY}
            for option, chosen in {**options, **spec.options}.items():
                if option not in SIZES and option != "agents":
                    yield f"{field}.{spec.name}.{option}", repr(chosen)


@pytest.mark.parametrize("scale", ["cpu", "paper"])
@pytest.mark.parametrize("name", presets.available())
def test_a_preset_is_a_plain_run_but_for_what_the_page_says(name, scale) -> None:
    said = [
        (names(preset), names(scales), names(where)) for preset, scales, where, _ in tables("Presets and plain runs")
    ]
    for place, tasks in beside(name, scale).items():
        told = any(
            any(fnmatch(name, each) for each in these)
            and scale in scales
            and any(fnmatch(place, each) for each in where)
            for these, scales, where in said
        )
        assert told, f"{name} at scale {scale} differs in {place} from a plain run of {', '.join(sorted(tasks))}"


def test_no_row_of_the_page_is_about_a_difference_that_is_none() -> None:
    for these, scales, where, reason in tables("Presets and plain runs"):
        assert reason
        found = [
            set(beside(name, scale))
            for name in presets.available()
            for scale in names(scales)
            if any(fnmatch(name, each) for each in names(these))
        ]
        for each in names(where):
            assert any(fnmatch(place, each) for places in found for place in places), (these, scales, each)
