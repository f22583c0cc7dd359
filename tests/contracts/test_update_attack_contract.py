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
from tests.contracts.options import options_of
from thornbed.attacks import Knowledge
from thornbed.attacks.update import Sight, outgoing, own_update

NAMES = sorted(
    module.name for module in pkgutil.iter_modules(thornbed.attacks.update.__path__) if module.name[0] != "_"
)
Attack = Callable[..., Tensor]
LENGTH = 2000  # more than mimic keeps
ROWS = [1, 2, 3]  # an attacker alone, with one accomplice, with two
every_attack = pytest.mark.parametrize("name", NAMES)
however_many = pytest.mark.parametrize("rows", ROWS)


def plugin_called(name: str) -> Attack:
    return getattr(importlib.import_module(f"thornbed.attacks.update.{name}"), name)


def attack_called(name: str) -> Attack:
    """Return the attack with a sight of updates that are nothing like its own, where it asks for one."""
    return seeing(plugin_called(name))


def seeing(attack: Attack) -> Attack:
    seen = torch.randn(LENGTH, generator=generator(12))
    sight = Sight(benign=lambda: seen, last_step=lambda: torch.where(seen > 0, seen, 0.0))
    return functools.partial(_with_sight, attack, sight)


def _with_sight(attack: Attack, sight: Sight, peers: Tensor, source: torch.Generator, **options: object) -> Tensor:
    return outgoing(functools.partial(attack, **options), peers, source, sight)


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def peers(rows: int = 3, length: int = LENGTH) -> Tensor:
    return torch.randn(rows, length, generator=generator(11))


def depends_on_accomplices(attack: Attack) -> bool:
    """Tell whether anything but its own update, the first row, changes what an attacker sends."""
    first, three, alone = attack(peers(), generator()), peers(), attack(peers()[:1], generator())
    changed = [torch.cat([three[:1], others]) for others in (-three[1:], 1e3 * three[1:], three[1:2], three[[2, 1]])]
    return any(not torch.equal(first, each) for each in (alone, *(attack(every, generator()) for every in changed)))


def test_the_folder_is_not_empty() -> None:
    assert {"sign_flip", "gaussian", "scaling"} <= set(NAMES)


@every_attack
def test_peers_and_generator_come_first_and_options_are_keywords_with_defaults(name: str) -> None:
    parameters = inspect.signature(plugin_called(name)).parameters.values()
    given = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    assert given in (["peers", "generator"], ["peers", "generator", "sight"])
    options = list(parameters)[len(given) :]
    assert all(option.kind is option.KEYWORD_ONLY and option.default is not option.empty for option in options)


@every_attack
def test_the_first_line_is_a_sentence_and_the_paper_is_named(name: str) -> None:
    first, blank, rest = (inspect.getdoc(importlib.import_module(f"thornbed.attacks.update.{name}")) or "").split(
        "\n", 2
    )
    assert first.endswith(".")
    assert blank == ""
    assert rest.startswith("Paper: ")


@every_attack
@however_many
def test_what_is_sent_is_finite_has_the_shape_and_dtype_of_an_update_and_is_not_the_honest_one(
    name: str, rows: int
) -> None:
    sent = attack_called(name)(peers(rows), generator())
    assert sent.shape == (LENGTH,)
    assert sent.dtype == torch.float32
    assert sent.isfinite().all()
    assert not torch.equal(sent, peers(rows)[0])


@every_attack
@however_many
def test_updates_of_zeros_make_no_number_that_is_none(name: str, rows: int) -> None:
    assert attack_called(name)(torch.zeros(rows, LENGTH), generator()).isfinite().all()


@every_attack
@however_many
def test_input_and_global_randomness_are_left_alone(name: str, rows: int) -> None:
    given = peers(rows)
    before = given.clone()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    sent = attack_called(name)(given, generator())
    sent.zero_()
    assert torch.equal(given, before), "what is sent shares memory with what was given"
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002


@every_attack
@however_many
def test_it_depends_on_the_generator_exactly_where_it_draws_from_it(name: str, rows: int) -> None:
    attack, used = attack_called(name), generator(3)
    first = attack(peers(rows), used)
    assert torch.equal(first, attack(peers(rows), generator(3)))
    draws = not torch.equal(used.get_state(), generator(3).get_state())
    assert draws == (not torch.equal(first, attack(peers(rows), generator(4))))


@every_attack
def test_whoever_uses_what_accomplices_share_says_so(name: str) -> None:
    needs = importlib.import_module(f"thornbed.attacks.update.{name}").NEEDS
    assert isinstance(needs, frozenset)
    assert needs
    assert all(isinstance(need, Knowledge) for need in needs)
    if depends_on_accomplices(attack_called(name)):
        assert Knowledge.OTHER_ATTACKERS in needs


@pytest.mark.parametrize(
    ("attack", "depends"),
    [
        (lambda peers, generator: -own_update(peers), False),
        (lambda peers, generator: peers[0] + torch.randn(LENGTH, generator=generator), False),
        (lambda peers, generator, sight: sight.benign() - peers[0], False),
        (lambda peers, generator: -peers.mean(dim=0), True),
        (lambda peers, generator: peers[0] / len(peers), True),
        (lambda peers, generator: peers[0] - peers[1:].std(dim=0) if len(peers) > 2 else -peers[0], True),
        (lambda peers, generator: peers[-1], True),
    ],
    ids=["own", "own and chance", "own and sight", "mean", "how many", "spread of the others", "the last"],
)
def test_this_suite_sees_who_uses_them(attack: Attack, depends: bool) -> None:
    assert depends_on_accomplices(seeing(attack)) == depends


@every_attack
@pytest.mark.parametrize("shape", [(LENGTH,), (0, LENGTH), (2, 5, 5)])
def test_peers_of_another_shape_are_refused_with_the_shape(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"needs peers of shape \(k, d\)"):
        attack_called(name)(torch.ones(shape), generator())


@every_attack
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 0.0])
def test_numbers_that_make_no_attack_are_refused(name: str, value: float) -> None:
    for option in options_of(plugin_called(name), float):
        with pytest.raises(ValueError, match=f"{name} needs .*{option}.* = {value}"):
            attack_called(name)(peers(), generator(), **{option: value})


@every_attack
def test_counts_below_nought_are_refused(name: str) -> None:
    for option in options_of(plugin_called(name), int):
        with pytest.raises(ValueError, match=f"{name} needs .*{option}.* = -1"):
            attack_called(name)(peers(), generator(), **{option: -1})
