"""What every backdoor in vertical learning keeps to; a new file of attacks/vertical is covered without a word here."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import math
import pkgutil
import random
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import thornbed.attacks.vertical
from thornbed.attacks import Knowledge
from thornbed.attacks.vertical import Adversary, VerticalAttack, View
from thornbed.tasks.blocks.grid import grid

SHAPE = (1, 6, 8)
BLOCKS = dict(enumerate(grid(SHAPE, 4, rows=2)))
ADVERSARIES = {party: BLOCKS[party] for party in (1, 3)}
ROWS = 90
OPTIONS: dict[str, dict[str, object]] = {
    "cooperative_backdoor": {"size": (3, 3), "epochs": 3, "steps": 3, "latent": 4, "hidden": 8},
    "badvfl": {"size": (3, 3)},
    "villain": {},
}
# Beside these: what other options of the same attack make of it.
VARIANTS = {
    "cooperative_backdoor of patches": {
        **OPTIONS["cooperative_backdoor"], "layers": "convolutions", "method": 2, "size": (2, 2), "center": None
    },
    "cooperative_backdoor without swapping": {**OPTIONS["cooperative_backdoor"], "swap": False},
    "badvfl of two references": {**OPTIONS["badvfl"], "references": 2},
}  # fmt: skip


def _defines(name: str) -> bool:
    path = Path(importlib.import_module(f"thornbed.attacks.vertical.{name}").__file__ or "")
    classes = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
    return name.replace("_", "") in {each.lower() for each in classes}


NAMES = sorted(
    module.name
    for module in pkgutil.iter_modules(thornbed.attacks.vertical.__path__)
    if module.name[0] != "_" and _defines(module.name)
)
every_attack = pytest.mark.parametrize("name", NAMES)
every_case = pytest.mark.parametrize("case", [*NAMES, *VARIANTS])


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def attack_called(name: str) -> type[VerticalAttack]:
    module = importlib.import_module(f"thornbed.attacks.vertical.{name}")
    return next(
        each for key, each in vars(module).items() if isinstance(each, type) and key.lower() == name.replace("_", "")
    )


def view(party: int = 1) -> View:
    x = torch.rand(ROWS, math.prod(SHAPE), generator=source(9))
    parts = {each: x[:, list(block)] for each, block in ADVERSARIES.items()}
    known = torch.arange(0, ROWS, 4)
    return View(
        party=party,
        x=parts[party],
        shared={other: part for other, part in parts.items() if other != party},
        blocks=ADVERSARIES,
        sample_shape=SHAPE,
        known=known,
        labels=known % 3,
        target=0,
        num_classes=3,
    )


def attack_made(case: str) -> VerticalAttack:
    return attack_called(case.split()[0])(**{**OPTIONS, **VARIANTS}.get(case, {}))


def member(case: str, seed: int = 0) -> Adversary:
    return attack_made(case).adversary(view(), source(seed))


def through(adversary: Adversary, passes: int = 5, seed: int = 2) -> list[Tensor]:
    """Go through so many passes over the rows, with made-up embeddings and gradients; return what it sent."""
    sent, generator = [], source(seed)
    for number in range(passes):
        for rows in torch.randperm(ROWS, generator=source(number)).split(30):
            x = adversary.embeds(rows, adversary.view.x[rows], generator)
            embeddings = x[:, :8] * 2 - 0.5
            sent.append(adversary.sends(rows, embeddings, generator))
            if adversary.watches:
                gradients = torch.randn(30, 8, generator=source(100 + number))
                adversary.hears(rows, gradients)
                adversary.learns(rows, gradients)
            vote = adversary.vote()
            if vote is not None and "rows" not in adversary.memory:
                adversary.agree(vote[:7], generator)
    return sent


def test_the_folder_is_not_empty() -> None:
    assert {"cooperative_backdoor", "badvfl", "villain"} <= set(NAMES)


@every_attack
def test_it_is_a_frozen_dataclass_that_says_where_it_is_from_and_what_it_must_know(name: str) -> None:
    attack = attack_called(name)
    assert issubclass(attack, VerticalAttack)
    assert attack.name == name
    with pytest.raises(dataclasses.FrozenInstanceError):
        attack().target = 1  # type: ignore[misc]
    module = importlib.import_module(f"thornbed.attacks.vertical.{name}")
    first, blank, rest = (inspect.getdoc(module) or "").split("\n", 2)
    assert first.endswith(".")
    assert blank == ""
    assert rest.startswith("Paper: ")
    assert isinstance(module.NEEDS, frozenset)
    assert all(isinstance(need, Knowledge) for need in module.NEEDS)
    assert Knowledge.OWN_DATA in module.NEEDS


@every_attack
def test_it_hears_gradients_where_it_says_so_and_nowhere_else(name: str) -> None:
    adversary = member(name)
    needs = importlib.import_module(f"thornbed.attacks.vertical.{name}").NEEDS
    assert adversary.watches == (Knowledge.OWN_GRADIENTS in needs)
    if not adversary.watches:
        assert type(adversary).hears is Adversary.hears
        assert type(adversary).learns is Adversary.learns


@every_case
def test_it_votes_poisons_what_was_agreed_on_and_leaves_all_else_as_it_is(case: str) -> None:
    adversary = member(case)
    through(adversary)
    assert adversary.vote() is not None
    poisoned, generator = adversary.memory["rows"], source(3)
    rows = torch.arange(ROWS)
    given = adversary.view.x.clone()
    embedded = adversary.embeds(rows, given, generator)
    sent = adversary.sends(rows, given[:, :8], generator)
    assert torch.equal(given, adversary.view.x)
    others = ~torch.isin(rows, poisoned)
    assert torch.equal(embedded[others], given[others])
    assert torch.equal(sent[others], given[others, :8])
    changed = (embedded != given).any(dim=1) | (sent != given[:, :8]).any(dim=1)
    assert bool(changed[poisoned].any())


@every_case
def test_a_trigger_changes_samples_or_embeddings_and_replacing_alone_adds_none(case: str) -> None:
    adversary = member(case)
    through(adversary)
    x, embeddings = torch.rand(20, adversary.view.x.shape[1], generator=source(4)), torch.rand(20, 8)
    before = x.clone(), embeddings.clone()
    triggered = adversary.triggers(x, source()), adversary.triggers_embeddings(embeddings)
    assert not torch.equal(triggered[0], x) or not torch.equal(triggered[1], embeddings)
    replaced = adversary.replaces(x, source())
    assert replaced.shape == x.shape
    # What replaces them is of the pool as it was learnt or drawn, without a trigger; there is none without swapping.
    pool = adversary.memory.get("pool", x)
    assert bool((replaced[:, None] == pool[None]).all(dim=2).any(dim=1).all())
    if "keep" in adversary.memory:
        assert not bool((triggered[0] == x).all(dim=1).any())
    assert torch.equal(x, before[0])
    assert torch.equal(embeddings, before[1])


@every_case
def test_its_memory_is_tensors_and_whoever_is_given_it_goes_on_the_same(case: str) -> None:
    attack = attack_made(case)
    whole, first = member(case), member(case)
    sent = through(whole, passes=3)
    again = through(first, passes=3)
    assert all(torch.equal(one, two) for one, two in zip(sent, again))
    assert all(isinstance(each, Tensor) for each in first.memory.values())
    second = attack.recalled(view(), {key: each.clone() for key, each in first.memory.items()})
    assert all(torch.equal(one, two) for one, two in zip(through(whole), through(second)))
    assert whole.vote() is not None
    assert torch.equal(whole.vote(), second.vote())


@every_case
def test_torchs_and_pythons_own_generators_are_left_alone(case: str) -> None:
    before = torch.get_rng_state(), random.getstate()
    through(member(case))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


@every_attack
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"target": -1}, "target >= 0: target = -1"),
        ({"budget": 1.5}, "0 <= budget <= 1: budget = 1.5"),
        ({"num_known": 1}, "at least two known labels: num_known = 1"),
        ({"known_target_share": 0.0}, "0 < known_target_share < 1: known_target_share = 0.0"),
        ({"vote": "loud"}, "vote out of printed, simple, none: vote = loud"),
    ],
)
def test_options_out_of_range_are_refused_with_the_name(name, options, sentence) -> None:
    with pytest.raises(ValueError, match=f"{name} needs .*{sentence}"):
        attack_called(name)(**options)


@every_attack
def test_a_target_that_is_no_class_is_refused_before_anything_starts(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} needs target < number of classes: target = 3, classes = 3"):
        attack_called(name)(**OPTIONS.get(name, {}), target=3).check(ADVERSARIES, SHAPE, 3)


@every_attack
def test_every_option_has_a_type_that_a_spec_can_be_checked_against(name: str) -> None:
    attack = attack_called(name)
    hints = typing.get_type_hints(attack)
    assert all(field.name in hints and field.kw_only for field in dataclasses.fields(attack))
    assert all(field.default is not dataclasses.MISSING for field in dataclasses.fields(attack))
