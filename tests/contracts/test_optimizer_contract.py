"""What every local optimiser keeps to; a new file of clients/optimizers is covered without a word here."""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable

import pytest
import torch
from torch.nn import Parameter

import thornbed.clients.optimizers

NAMES = sorted(
    module.name for module in pkgutil.iter_modules(thornbed.clients.optimizers.__path__) if module.name[0] != "_"
)


def optimizer_called(name: str) -> Callable[..., torch.optim.Optimizer]:
    return getattr(importlib.import_module(f"thornbed.clients.optimizers.{name}"), name)


def descend(name: str, steps: int, learning_rate: float) -> list[float]:
    """Return the losses on the way down a bowl that is steeper one way than the other."""
    weights = Parameter(torch.tensor([1.0, -2.0]))
    optimizer = optimizer_called(name)([weights], learning_rate)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = weights[0] ** 2 + 3 * weights[1] ** 2
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_the_folder_is_not_empty() -> None:
    assert {"sgd", "adam"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_learning_rate_come_first_and_options_are_keywords_with_defaults(name: str) -> None:
    first, second, *options = inspect.signature(optimizer_called(name)).parameters.values()
    assert (first.name, second.name) == ("parameters", "learning_rate")
    assert all(option.kind is option.KEYWORD_ONLY and option.default is not option.empty for option in options)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_line_is_a_sentence_and_the_paper_is_named(name: str) -> None:
    first, blank, rest = (inspect.getdoc(importlib.import_module(f"thornbed.clients.optimizers.{name}")) or "").split(
        "\n", 2
    )
    assert first.endswith(".")
    assert blank == ""
    assert rest.startswith("Paper: ")


@pytest.mark.parametrize("name", NAMES)
def test_it_goes_down_and_does_so_twice_alike(name: str) -> None:
    losses = descend(name, steps=200, learning_rate=0.05)
    assert losses[-1] < 0.01 * losses[0]
    assert losses == descend(name, steps=200, learning_rate=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_the_learning_rate_is_used(name: str) -> None:
    assert descend(name, steps=3, learning_rate=0.01)[-1] > descend(name, steps=3, learning_rate=0.02)[-1]


@pytest.mark.parametrize("name", NAMES)
def test_every_number_changes_what_it_does(name: str) -> None:
    def end(**options: float) -> list[float]:
        weights = Parameter(torch.tensor([1.0, -2.0]))
        optimizer = optimizer_called(name)([weights], 0.05, **options)
        for _ in range(3):
            optimizer.zero_grad()
            # no bowl around zero: Adam would not notice that weight decay makes its gradient longer
            ((weights[0] - 3) ** 2 + 3 * weights[1] ** 2).backward()
            optimizer.step()
        return weights.tolist()

    for option in inspect.signature(optimizer_called(name)).parameters.values():
        if isinstance(option.default, float):
            assert end(**{option.name: 0.5}) != end(), option.name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0.0, -0.1, math.nan, math.inf])
def test_learning_rates_that_do_not_learn_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} needs .*learning_rate = {value}"):
        optimizer_called(name)([Parameter(torch.ones(1))], value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [-0.5, math.nan, math.inf])
def test_options_out_of_range_are_refused(name: str, value: float) -> None:
    for option in inspect.signature(optimizer_called(name)).parameters.values():
        if isinstance(option.default, float):
            with pytest.raises(ValueError, match=f"{name} needs .*{option.name}.* = {value}"):
                optimizer_called(name)([Parameter(torch.ones(1))], 0.1, **{option.name: value})
