"""What every strategy keeps to that --strategy names; a new class of strategies/ is covered without a word here.

Rules of defenses/aggregation are named by the same flag and have a contract of their own; FedAvg, which they make, is
tried here too.
"""

from __future__ import annotations

import inspect
import math
import re
import typing
from typing import Any

import pytest
import torch
from flwr.serverapp.strategy import Strategy

import thornbed.strategies
from tests.contracts.options import options_of
from thornbed.flower_apps.schemes.horizontal.run import strategy_of
from thornbed.flower_apps.schemes.scheme import Scheme, scheme_of
from thornbed.flower_apps.settings import plugins, settings_from
from thornbed.strategies import FedAvg, NumberedClients

NAMES = sorted(name for name, folder in plugins.available("strategy").items() if folder == "strategies")
CLIENTS = 4
# Options for which a number below nought makes sense, as (strategy, option).
SIGNED = {("fedavg", "seed")}
every_name = pytest.mark.parametrize("name", NAMES)
every_strategy = pytest.mark.parametrize("name", ["fedavg", *NAMES])


def strategy_class(name: str) -> type[Any]:
    return FedAvg if name == "fedavg" else typing.cast("type[Any]", plugins.find("strategy", name))


def cohort() -> NumberedClients:
    return NumberedClients(CLIENTS, CLIENTS)


def built(name: str) -> Any:
    """Return the strategy as a run makes it of its name."""
    return strategy_of(name, cohort(), 2)


def refuses(name: str, option: str, value: object) -> None:
    with pytest.raises(ValueError) as refused:
        strategy_class(name)(cohort(), 2, **{option: value})
    said = str(refused.value)
    assert re.search(rf"\b{option}\b", said), said
    assert f"= {value}" in said, said
    assert "\n" not in said


def test_the_folder_is_not_empty() -> None:
    assert {"invariant_aggregation", "mocha", "split_nn", "collaborative_inference"} <= set(NAMES)


@every_strategy
def test_it_is_a_strategy_of_flower(name: str) -> None:
    cls = strategy_class(name)
    assert issubclass(cls, Strategy)
    assert not inspect.isabstract(cls)


def test_the_package_exports_the_strategies_of_this_house() -> None:
    names = {"FedAvg", "InvariantAggregation", "Mocha", "SplitNN", "CollaborativeInference"}
    assert names <= set(thornbed.strategies.__all__)
    classes = {strategy_class(name) for name in ("fedavg", *NAMES)}
    assert {getattr(thornbed.strategies, name) for name in names} <= classes


@every_strategy
def test_it_says_what_it_is_and_where_it_is_from(name: str) -> None:
    first, blank, rest = (inspect.getdoc(inspect.getmodule(strategy_class(name))) or "").split("\n", 2)
    assert first.endswith(".")
    assert blank == ""
    assert rest.startswith(("Paper: ", "Source: "))
    assert inspect.getdoc(strategy_class(name)) != inspect.getdoc(Strategy)


@every_strategy
def test_the_cohort_and_the_least_replies_come_first_and_options_are_keywords_with_defaults(name: str) -> None:
    """A run makes it of these two; what else stands before the options has a default.

    What a strategy takes by any name (the options of Flower's FedAvg) is for Flower apps: no command line names it.
    """
    parameters = [
        each
        for each in inspect.signature(strategy_class(name)).parameters.values()
        if each.kind is not each.VAR_KEYWORD
    ]
    assert [each.name for each in parameters[:2]] == ["cohort", "min_replies"]
    assert all(each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY) for each in parameters)
    assert all(each.default is not each.empty for each in parameters[1:])
    # the command line reads the types of the options
    hints = typing.get_type_hints(strategy_class(name).__init__)
    assert {each.name for each in parameters} <= set(hints)


@every_strategy
def test_every_option_is_documented(name: str) -> None:
    cls = strategy_class(name)
    text = inspect.getdoc(cls) or ""
    options = [each.name for each in inspect.signature(cls).parameters.values() if each.kind is each.KEYWORD_ONLY]
    assert [option for option in options if not re.search(rf"\b{option}\b", text)] == []


@every_strategy
def test_a_run_finds_what_it_needs_in_a_new_one(name: str) -> None:
    given = cohort()
    made = strategy_of(name, given, 2)
    assert type(made) is strategy_class(name)
    assert made.cohort is given
    assert made.min_replies == 2
    assert made.account is None
    assert made.memory == {}


@every_strategy
def test_two_strategies_share_no_memory_and_a_run_can_give_it_back(name: str) -> None:
    one, other = built(name), built(name)
    one.memory["kept"] = torch.ones(2)
    assert other.memory == {}
    other.memory = {"kept": torch.zeros(2)}
    assert one.memory["kept"].sum() == 2


@every_strategy
def test_its_scheme_is_there_and_takes_it(name: str) -> None:
    scheme = scheme_of(settings_from({"strategy": name}))
    assert isinstance(scheme, Scheme)
    assert isinstance(getattr(strategy_class(name), "scheme", "horizontal"), str)


@every_strategy
@pytest.mark.parametrize("value", [0, -1])
def test_fewer_than_one_reply_are_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"min_replies.*{value}"):
        strategy_class(name)(cohort(), value)


@every_strategy
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0])
def test_numbers_out_of_range_are_refused_with_the_option_and_its_value(name: str, value: float) -> None:
    for option in options_of(strategy_class(name), float):
        if value != -1 or (name, option) not in SIGNED:
            refuses(name, option, value)


@every_strategy
def test_counts_below_nought_are_refused_with_the_option_and_its_value(name: str) -> None:
    for option in options_of(strategy_class(name), int):
        if (name, option) not in SIGNED:
            refuses(name, option, -1)


@every_strategy
@pytest.mark.parametrize("value", [(0,), (8, -1)])
def test_widths_below_one_are_refused_with_the_option_and_its_value(name: str, value: tuple[int, ...]) -> None:
    for option in options_of(strategy_class(name), tuple):
        refuses(name, option, value)


@every_name
def test_options_that_it_does_not_take_are_refused_with_those_that_it_does(name: str) -> None:
    with pytest.raises(plugins.BadSpec, match=f"{name} has no option nonsense; it takes "):
        strategy_of(f"{name}(nonsense=1)", cohort(), 1)


@every_strategy
def test_its_summary_is_written_without_a_word_to_the_terminal(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    built(name).summary()
    assert capsys.readouterr().out == ""
