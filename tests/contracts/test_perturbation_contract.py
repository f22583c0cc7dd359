"""What every perturbation keeps to; a new file of defenses/perturbation is covered without a word here."""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import thornbed.defenses.perturbation
from thornbed.defenses.reporting import listening

NAMES = sorted(
    module.name for module in pkgutil.iter_modules(thornbed.defenses.perturbation.__path__) if module.name[0] != "_"
)


def defense_called(name: str) -> Callable[..., Tensor]:
    return getattr(importlib.import_module(f"thornbed.defenses.perturbation.{name}"), name)


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def update() -> Tensor:
    return torch.randn(50, generator=generator(11))


def test_the_folder_is_not_empty() -> None:
    assert "local_dp" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_update_and_generator_come_first_and_options_are_keywords_with_defaults(name: str) -> None:
    first, second, *options = inspect.signature(defense_called(name)).parameters.values()
    assert (first.name, second.name) == ("update", "generator")
    assert all(option.kind is option.KEYWORD_ONLY and option.default is not option.empty for option in options)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_line_is_a_sentence_and_the_paper_is_named(name: str) -> None:
    text = inspect.getdoc(importlib.import_module(f"thornbed.defenses.perturbation.{name}")) or ""
    first, blank, rest = text.split("\n", 2)
    assert first.endswith(".")
    assert blank == ""
    assert rest.startswith("Paper: ")


@pytest.mark.parametrize("name", NAMES)
def test_it_changes_the_update_and_keeps_shape_and_dtype(name: str) -> None:
    sent = defense_called(name)(update(), generator())
    assert sent.shape == (50,)
    assert sent.dtype == torch.float32
    assert sent.isfinite().all()
    assert not torch.equal(sent, update())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_input_and_global_randomness_are_left_alone(name: str, scale: float) -> None:
    given = scale * update()
    before = given.clone()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    sent = defense_called(name)(given, generator())
    sent.zero_()
    assert torch.equal(given, before)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002


@pytest.mark.parametrize("name", NAMES)
def test_it_depends_on_the_generator_exactly_where_it_draws_from_it(name: str) -> None:
    defense, used = defense_called(name), generator(3)
    first = defense(update(), used)
    assert torch.equal(first, defense(update(), generator(3)))
    draws = not torch.equal(used.get_state(), generator(3).get_state())
    assert draws == (not torch.equal(first, defense(update(), generator(4))))


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_did(name: str) -> None:
    with listening() as figures:
        defense_called(name)(1e3 * update(), generator())
    assert figures


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_numbers_that_make_no_defense_are_refused(name: str, value: float) -> None:
    for option in inspect.signature(defense_called(name)).parameters.values():
        if isinstance(option.default, float):
            with pytest.raises(ValueError, match=f"{name} needs .*{option.name}.* = {value}"):
                defense_called(name)(update(), generator(), **{option.name: value})
