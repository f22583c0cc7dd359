"""What every scheme of learning keeps to; a new one in flower_apps/schemes is covered without a word here."""

from __future__ import annotations

import importlib
import inspect
import json
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from thornbed.attacks import Knowledge
from thornbed.flower_apps.metrics import METRICS
from thornbed.flower_apps.resolving import resolve
from thornbed.flower_apps.run import threat
from thornbed.flower_apps.run.client import Client
from thornbed.flower_apps.schemes.scheme import Scheme, available, built, load, scheme_of
from thornbed.flower_apps.settings import AUTO, BadSettings, Resolved, Settings, kind_of, plugins, settings_from
from thornbed.flower_apps.settings.plugins import ROOT
from thornbed.protocol.client_state import ClientState, LivingMemory
from thornbed.tasks import Defaults
from thornbed.tasks.sources import MissingData


def schemes() -> dict[str, Scheme]:
    """Return the schemes by name: every folder below flower_apps/schemes with a module `scheme`."""
    return {name: load(name) for name in available()}


SCHEMES = schemes()
NAMES = sorted(SCHEMES)
FILLED = ("model", "optimizer", "learning_rate", "batch_size", "local_epochs", "rounds", "partition")
every_scheme = pytest.mark.parametrize("name", NAMES)


def strategies_of(name: str) -> list[str]:
    """Return the names that --strategy takes of a scheme."""
    return [each for each in plugins.available("strategy") if _scheme_name(each) == name]


def _scheme_name(strategy: str) -> str:
    return str(getattr(plugins.find("strategy", strategy), "scheme", "horizontal"))


@lru_cache
def run_of(name: str) -> Resolved:
    """Return a run of the scheme with all that it leaves to the task, for its first task that needs no data."""
    refused = []
    for task, folder in plugins.available("task").items():
        if folder in SCHEMES[name].tasks:
            try:
                settings = resolve(settings_from({"strategy": strategies_of(name)[0], "task": task}))
                SCHEMES[name].check(built(settings), True)
                return settings
            except (MissingData, BadSettings) as error:
                refused.append(f"{task}: {error}")
    raise AssertionError(f"no task of {name} can be run as it is by default: {refused}")


def attacked_run(name: str, attack: str, **more: object) -> Resolved:
    settings = run_of(name)
    return resolve(settings_from({"strategy": settings.strategy, "task": settings.task, "attack": attack, **more}))


def attacks_of(name: str) -> list[str]:
    return [attack for attack, folder in plugins.available("attack").items() if folder in SCHEMES[name].attacks]


def role_of(settings: Resolved, client: int, **node_config: str) -> str:
    """Return the role of a client of a run, which needs nothing of what it keeps."""
    memory = ClientState(client, LivingMemory(), None)
    return SCHEMES[_scheme_name(plugins.parse(settings.strategy).name)].role(
        built(settings), Client(client, node_config, memory, 7)
    )


def printable(text: object) -> bool:
    return isinstance(text, str) and text.isprintable()


def test_the_schemes_of_this_house_are_there() -> None:
    assert {"horizontal", "multitask", "vertical", "inference"} <= set(NAMES)


@every_scheme
def test_it_is_a_scheme_that_says_what_it_is_and_some_strategy_has_it(name: str) -> None:
    scheme = SCHEMES[name]
    assert isinstance(scheme, Scheme)
    doc = inspect.getdoc(importlib.import_module(f"thornbed.flower_apps.schemes.{name}.scheme")) or ""
    assert doc.split("\n")[0].endswith(".")
    assert strategies_of(name)
    assert all(scheme_of(settings_from({"strategy": each})) is scheme for each in strategies_of(name))


@every_scheme
@pytest.mark.parametrize("kind", ["task", "attack", "defense"])
def test_the_folders_that_it_takes_are_there_and_are_of_the_kind(name: str, kind: str) -> None:
    folders = getattr(SCHEMES[name], {"task": "tasks", "attack": "attacks", "defense": "defenses"}[kind])
    assert isinstance(folders, tuple)
    assert folders
    assert len(set(folders)) == len(folders)
    for folder in folders:
        assert (ROOT / folder).is_dir()
        assert folder in plugins.FOLDERS[kind]
        assert folder in plugins.available(kind).values(), f"{folder} has no plug-in"


@every_scheme
@pytest.mark.parametrize("kind", ["task", "attack", "defense"])
@pytest.mark.parametrize("unknown", ["nonsense", "krum"])
def test_a_name_that_is_none_of_the_kind_is_refused_with_those_that_are(name: str, kind: str, unknown: str) -> None:
    words = {"strategy": run_of(name).strategy, "task": run_of(name).task, kind: unknown}
    with pytest.raises(ValueError, match=f"^there is no {kind} called {unknown}; .*here are"):
        resolve(settings_from(words))


@pytest.mark.parametrize("kind", ["task", "attack", "defense"])
def test_what_lies_in_any_folder_of_a_kind_is_taken_by_some_scheme(kind: str) -> None:
    taken = {folder for scheme in SCHEMES.values() for folder in (*scheme.tasks, *scheme.attacks, *scheme.defenses)}
    assert set(plugins.FOLDERS[kind]) <= taken


@every_scheme
def test_what_it_gives_is_knowledge_and_enough_for_every_attack_that_it_takes(name: str) -> None:
    gives = SCHEMES[name].gives
    assert isinstance(gives, frozenset)
    assert gives
    assert all(isinstance(each, Knowledge) for each in gives)
    assert {attack: threat.needs(attack) - gives for attack in attacks_of(name) if threat.needs(attack) - gives} == {}


@every_scheme
def test_what_it_does_not_use_are_settings_and_each_is_refused_where_it_is_given(name: str) -> None:
    unused, words = SCHEMES[name].unused, {"strategy": run_of(name).strategy, "task": run_of(name).task}
    assert isinstance(unused, frozenset)
    assert unused <= set(Settings.model_fields)
    assert not unused & {"task", "strategy", "attack", "defense", "seed", "rounds", "engine", "output"}
    for setting in unused:
        other = {bool: True, float: 0.5, int: 7, str: "7"}[kind_of(setting)]
        with pytest.raises(BadSettings, match=f"--{setting.replace('_', '-')} means nothing with --strategy "):
            resolve(settings_from({**words, setting: other}))


@every_scheme
def test_its_defaults_make_a_run_of_one_of_its_tasks(name: str) -> None:
    settings = run_of(name)
    defaults = SCHEMES[name].defaults(settings_from({"strategy": settings.strategy, "task": settings.task}))
    assert isinstance(defaults, Defaults)
    assert all(getattr(settings, field) != AUTO for field in FILLED)
    assert settings.num_clients >= settings.clients_per_round >= settings.min_replies >= 1
    assert 0 < defaults.malicious_share < 1
    assert resolve(settings) == settings, "what is resolved once is resolved"


@every_scheme
def test_with_an_attack_some_clients_are_malicious_and_not_all(name: str) -> None:
    assert run_of(name).malicious == frozenset()
    attacked = attacked_run(name, attacks_of(name)[0])
    assert 0 < len(attacked.malicious) < attacked.num_clients


@every_scheme
def test_roles_are_words_that_can_be_printed_and_whoever_is_honest_is_benign(name: str) -> None:
    honest = run_of(name)
    assert {role_of(honest, client) for client in range(honest.num_clients)} == {"benign"}
    for attack in attacks_of(name):
        attacked = attacked_run(name, attack)
        roles = {client: role_of(attacked, client) for client in range(attacked.num_clients)}
        assert all(printable(each) and each and each == each.strip() for each in roles.values())
        assert {each for client, each in roles.items() if client not in attacked.malicious} == {"benign"}


@every_scheme
def test_a_node_of_a_deployment_is_what_it_says_of_itself(name: str, tmp_path: Path) -> None:
    """The records of a run count whoever is not benign as malicious."""
    apart = SCHEMES[name].known_in("deployment")
    attack = next(each for each in attacks_of(name) if threat.needs(each) <= apart)
    deployed = attacked_run(name, attack, engine="deployment")
    assert role_of(deployed, 0) == role_of(deployed, 0, role="benign") == "benign"
    malicious = role_of(deployed, 0, role="malicious", channel=str(tmp_path), accomplices="0,1")
    assert malicious != "benign"
    assert printable(malicious)
    with pytest.raises(BadSettings, match="role in --node-config is benign or malicious, not 'evil'"):
        role_of(deployed, 0, role="evil")


@every_scheme
def test_a_node_that_cannot_attack_says_so_in_a_sentence(name: str) -> None:
    """A malicious node without an attack would be honest, and nobody would know."""
    settings = run_of(name)
    words = {"strategy": settings.strategy, "task": settings.task, "engine": "deployment"}
    with pytest.raises(BadSettings, match="this node is malicious and there is no attack: name one in --node-config"):
        role_of(resolve(settings_from(words)), 0, role="malicious", channel="anywhere", accomplices="0,1")


@every_scheme
def test_what_it_says_can_be_printed(name: str) -> None:
    scheme = SCHEMES[name]
    assert printable(scheme.counted)
    assert scheme.counted
    assert printable(scheme.attack_begins)
    for metrics in ({}, dict.fromkeys(METRICS)):
        assert all(printable(sentence) and sentence for sentence in scheme.beware(metrics, []))


@pytest.fixture(scope="module")
def learning(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a maker of the server's side of a run, made once for each scheme."""
    made: dict[str, Any] = {}

    def make(name: str) -> Any:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = SCHEMES[name].learn(built(run_of(name).model_copy(update={"output": str(folder)})))
        return made[name]

    return make


@every_scheme
def test_the_servers_side_has_what_a_run_needs(name: str, learning: Any) -> None:
    side = learning(name)
    assert side.strategy.cohort.num_clients == run_of(name).num_clients
    assert side.strategy.account is None
    assert side.strategy.memory == {}
    assert side.malicious == frozenset()
    assert json.loads(json.dumps(dict(side.facts))) == dict(side.facts)
    assert side.facts["num_parameters"] > 0


def layout(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


@every_scheme
def test_a_run_begins_with_finite_tensors_of_its_layout_the_same_each_time(name: str, learning: Any) -> None:
    side, state = learning(name), torch.get_rng_state()
    first = {key: tensor.clone() for key, tensor in side.initial().items()}
    assert layout(first) == layout(side.layout())
    assert all(tensor.isfinite().all() for tensor in first.values())
    again = side.initial()
    assert all(torch.equal(tensor, again[key]) for key, tensor in first.items())
    assert torch.equal(torch.get_rng_state(), state)


@every_scheme
def test_metrics_before_the_first_round_are_known_ones_and_finite_or_none(name: str, learning: Any) -> None:
    side = learning(name)
    metrics = side.test(side.initial())
    assert metrics
    assert set(metrics) <= set(METRICS)
    assert all(value is None or math.isfinite(value) for value in metrics.values())


@every_scheme
def test_how_long_a_run_takes_is_a_number_of_seconds(name: str) -> None:
    assert 0 < SCHEMES[name].seconds(built(run_of(name))) < math.inf
