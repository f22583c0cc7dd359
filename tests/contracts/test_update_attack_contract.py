"""What every attack on the update keeps to; a new file of attacks/update is covered without a word here."""

from __future__ import annotations

import functools
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

import thornbed.attacks.update
from thornbed.attacks.update import Sight, outgoing

NAMES = sorted(
    module.name for module in pkgutil.iter_modules(thornbed.attacks.update.__path__) if module.name[0] != "_"
)
Attack = Callable[..., Tensor]
LENGTH = 2000  # more than mimic keeps


def attack_called(name: str) -> Attack:
    """Return the attack with a sight of updates that are nothing like its own, where it asks for one."""
    attack = getattr(importlib.import_module(f"thornbed.attacks.update.{name}"), name)
    seen = torch.randn(LENGTH, generator=generator(12))
    sight = Sight(benign=lambda: seen, last_step=lambda: torch.where(seen > 0, seen, 0.0))
    return functools.partial(_with_sight, attack, sight)


def _with_sight(attack: Attack, sight: Sight, peers: Tensor, source: torch.Generator, **options: object) -> Tensor:
    return outgoing(functools.partial(attack, **options), peers, source, sight)


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def peers(rows: int = 3, length: int = LENGTH) -> Tensor:
    return torch.randn(rows, length, generator=generator(11))


def test_the_folder_is_not_empty() -> None:
    assert {"sign_flip", "gaussian", "scaling"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_peers_and_generator_come_first_and_options_are_keywords_with_defaults(name: str) -> None:
    attack = getattr(importlib.import_module(f"thornbed.attacks.update.{name}"), name)
    parameters = inspect.signature(attack).parameters.values()
    given = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    assert given in (["peers", "generator"], ["peers", "generator", "sight"])
    options = list(parameters)[len(given) :]
    assert all(option.kind is option.KEYWORD_ONLY and option.default is not option.empty for option in options)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_line_is_a_sentence_and_the_paper_is_named(name: str) -> None:
    first, blank, rest = (inspect.getdoc(importlib.import_module(f"thornbed.attacks.update.{name}")) or "").split(
        "\n", 2
    )
    assert first.endswith(".")
    assert blank == ""
    assert rest.startswith("Paper: ")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [1, 3])
def test_what_is_sent_is_finite_has_the_shape_and_dtype_of_an_update_and_is_not_the_honest_one(
    name: str, rows: int
) -> None:
    sent = attack_called(name)(peers(rows), generator())
    assert sent.shape == (LENGTH,)
    assert sent.dtype == torch.float32
    assert sent.isfinite().all()
    assert not torch.equal(sent, peers(rows)[0])


@pytest.mark.parametrize("name", NAMES)
def test_input_and_global_randomness_are_left_alone(name: str) -> None:
    given = peers()
    before = given.clone()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    sent = attack_called(name)(given, generator())
    sent.zero_()
    assert torch.equal(given, before), "what is sent shares memory with what was given"
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002


@pytest.mark.parametrize("name", NAMES)
def test_it_depends_on_the_generator_exactly_where_it_draws_from_it(name: str) -> None:
    attack, used = attack_called(name), generator(3)
    first = attack(peers(), used)
    assert torch.equal(first, attack(peers(), generator(3)))
    draws = not torch.equal(used.get_state(), generator(3).get_state())
    assert draws == (not torch.equal(first, attack(peers(), generator(4))))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(LENGTH,), (0, LENGTH), (2, 5, 5)])
def test_peers_of_another_shape_are_refused_with_the_shape(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"needs peers of shape \(k, d\)"):
        attack_called(name)(torch.ones(shape), generator())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0])
def test_numbers_that_make_no_attack_are_refused(name: str, value: float) -> None:
    options = [
        option.name
        for option in inspect.signature(
            getattr(importlib.import_module(f"thornbed.attacks.update.{name}"), name)
        ).parameters.values()
        if isinstance(option.default, float)
    ]
    for option in options:
        with pytest.raises(ValueError, match=f"{name} needs .*{option}.* = {value}"):
            attack_called(name)(peers(), generator(), **{option: value})
