"""What every attack of a group keeps to; a new file of attacks/group is covered without a word here."""

from __future__ import annotations

import inspect
import math
import random
import typing
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.contracts.options import options_of
from thornbed.attacks import Knowledge
from thornbed.clients.poisoning import GroupPoisoning
from thornbed.flower_apps.run.threat import needs
from thornbed.flower_apps.settings import plugins
from thornbed.tasks import Samples

NAMES = sorted(name for name, folder in plugins.available("attack").items() if folder == "attacks/group")
MODALITIES = ("image", "table", "text")
VOCABULARY = {f"word{i}": i for i in range(1, 100)}
ROWS, NUM_CLASSES = 60, 10
# Options for which a number below nought makes an attack, as (attack, option).
SIGNED: frozenset[tuple[str, str]] = frozenset()
every_attack = pytest.mark.parametrize("name", NAMES)
every_modality = pytest.mark.parametrize("modality", MODALITIES)
group_sizes = pytest.mark.parametrize("num_members", [1, 2, 3, 7])


def attack_called(name: str) -> Callable[..., Samples]:
    return plugins.find("attack", name)


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pool_of(modality: str, rows: int = ROWS) -> Samples:
    """Return what the members hold together: decoded samples of every class, each of them like no other."""
    y = torch.arange(rows) % NUM_CLASSES
    if modality == "text":
        return Samples(torch.randint(1, 100, (rows, 9), generator=generator(11)), y, VOCABULARY)
    x: Tensor = torch.rand(rows, 3, 4, 4, generator=generator(11))
    return Samples(x if modality == "image" else x.flatten(1), y)


def same(first: Samples, second: Samples) -> bool:
    return torch.equal(first.x, second.x) and torch.equal(first.y, second.y)


def test_the_folder_is_not_empty() -> None:
    assert "collude" in NAMES


@every_attack
def test_pool_members_and_generator_come_first_and_options_are_keywords_with_defaults(name: str) -> None:
    parameters = list(inspect.signature(attack_called(name)).parameters.values())
    assert [each.name for each in parameters[:3]] == ["pool", "num_members", "generator"]
    assert all(each.kind is each.POSITIONAL_OR_KEYWORD for each in parameters[:3])
    assert all(each.kind is each.KEYWORD_ONLY and each.default is not each.empty for each in parameters[3:])
    # the command line reads the types of the options
    assert {each.name for each in parameters[3:]} <= set(typing.get_type_hints(attack_called(name)))


@every_attack
def test_the_first_line_is_a_sentence_and_the_paper_is_named(name: str) -> None:
    first, blank, rest = (inspect.getdoc(inspect.getmodule(attack_called(name))) or "").split("\n", 2)
    assert first.endswith(".")
    assert blank == ""
    assert rest.startswith("Paper: ")


@every_attack
def test_it_says_that_it_uses_what_all_members_hold(name: str) -> None:
    assert {Knowledge.OWN_DATA, Knowledge.OTHER_ATTACKERS} <= needs(name)


@every_attack
@every_modality
@group_sizes
def test_it_gives_samples_of_the_same_kind_not_more_than_there_are(name: str, modality: str, num_members: int) -> None:
    pool = pool_of(modality)
    found = attack_called(name)(pool, num_members, generator())
    assert isinstance(found, Samples)
    assert 1 <= len(found) <= len(pool)
    assert found.x.shape[1:] == pool.x.shape[1:]
    assert found.x.dtype == pool.x.dtype
    assert found.x.isfinite().all()
    assert found.y.shape == (len(found),)
    assert found.y.dtype == torch.int64
    assert 0 <= int(found.y.min()) <= int(found.y.max()) < NUM_CLASSES
    assert found.vocabulary == pool.vocabulary


@every_attack
@every_modality
@group_sizes
def test_every_member_makes_the_same_of_it_and_another_round_something_else(
    name: str, modality: str, num_members: int
) -> None:
    """Members agree on nothing but the state of their generators."""
    attack, used = attack_called(name), generator(3)
    first = attack(pool_of(modality), num_members, used)
    for _ in range(num_members):
        assert same(first, attack(pool_of(modality), num_members, generator(3)))
    draws = not torch.equal(used.get_state(), generator(3).get_state())
    assert draws == (not same(first, attack(pool_of(modality), num_members, generator(4))))


@every_attack
@every_modality
def test_input_and_global_randomness_are_left_alone(name: str, modality: str) -> None:
    pool = pool_of(modality)
    x, y = pool.x.clone(), pool.y.clone()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    found = attack_called(name)(pool, 2, generator())
    found.x.zero_()
    found.y.zero_()
    assert torch.equal(pool.x, x), "what comes back shares memory with the pool"
    assert torch.equal(pool.y, y), "what comes back shares memory with the pool"
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002


@every_attack
def test_members_with_hardly_any_samples_still_train_on_one(name: str) -> None:
    for rows, num_members in ((1, 1), (1, 5), (2, 3)):
        assert len(attack_called(name)(pool_of("table", rows), num_members, generator())) >= 1


@every_attack
@pytest.mark.parametrize(("rows", "num_members"), [(0, 2), (4, 0), (4, -1)])
def test_a_group_of_nobody_and_a_pool_of_nothing_are_refused_with_both_numbers(
    name: str, rows: int, num_members: int
) -> None:
    with pytest.raises(ValueError, match=f"{name} needs .*members = {num_members}, samples = {rows}"):
        attack_called(name)(pool_of("table", rows), num_members, generator())


@every_attack
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0])
def test_numbers_that_make_no_attack_are_refused(name: str, value: float) -> None:
    for option in options_of(attack_called(name), float):
        if value != -1 or (name, option) not in SIGNED:
            with pytest.raises(ValueError, match=f"{name} needs .*{option}.* = {value}"):
                attack_called(name)(pool_of("table"), 2, generator(), **{option: value})


@every_attack
def test_counts_below_nought_are_refused(name: str) -> None:
    for option in options_of(attack_called(name), int):
        with pytest.raises(ValueError, match=f"{name} needs .*{option}.* = -1"):
            attack_called(name)(pool_of("table"), 2, generator(), **{option: -1})


@every_attack
def test_a_client_that_plays_it_trains_on_what_its_group_does(name: str) -> None:
    role = GroupPoisoning(plugins.load("attack", name))
    assert role.group is not None
    assert same(role.group(pool_of("image"), 2, generator()), attack_called(name)(pool_of("image"), 2, generator()))
