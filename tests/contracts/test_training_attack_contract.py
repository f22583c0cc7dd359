"""What every attack on local training keeps to; a new file of attacks/training is covered without a word here."""

from __future__ import annotations

import dataclasses
import inspect
import math
import random
import typing

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.contracts.options import options_of
from thornbed.attacks import Knowledge
from thornbed.attacks.training import TrainingAttack
from thornbed.attacks.update import Sight
from thornbed.clients.poisoning import TrainingPoisoning
from thornbed.flower_apps.run.threat import needs
from thornbed.flower_apps.settings import plugins

NAMES = sorted(name for name, folder in plugins.available("attack").items() if folder == "attacks/training")
LENGTH = 60
# Options for which a number below nought makes an attack, as (attack, option).
SIGNED: frozenset[tuple[str, str]] = frozenset()
every_attack = pytest.mark.parametrize("name", NAMES)
however_many = pytest.mark.parametrize("rows", [1, 2, 3])


def attack_class(name: str) -> type:
    return typing.cast(type, plugins.find("attack", name))


def made(name: str, **options: object) -> TrainingAttack:
    return typing.cast(TrainingAttack, attack_class(name)(**options))


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def peers(rows: int = 3) -> Tensor:
    return torch.randn(rows, LENGTH, generator=generator(11))


def scalars(cross_entropy: float = 1.5, distance: float = 0.7) -> tuple[Tensor, Tensor]:
    return torch.tensor(cross_entropy, requires_grad=True), torch.tensor(distance, requires_grad=True)


def depends_on_accomplices(attack: TrainingAttack) -> bool:
    """Tell whether anything but its own update, the first row, changes what an attacker sends."""
    first, three = attack.outgoing(peers(), generator()), peers()
    changed = [torch.cat([three[:1], others]) for others in (-three[1:], 1e3 * three[1:], three[1:2], three[:0])]
    return any(not torch.equal(first, attack.outgoing(every, generator())) for every in changed)


def test_the_folder_is_not_empty() -> None:
    assert "constrain_and_scale" in NAMES


@every_attack
def test_it_is_a_frozen_dataclass_of_keyword_options_with_defaults(name: str) -> None:
    cls = attack_class(name)
    fields = dataclasses.fields(cls)
    assert fields
    assert all(field.kw_only and field.default is not dataclasses.MISSING for field in fields)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made(name), fields[0].name, fields[0].default)
    # the command line reads the types of the options
    assert {field.name for field in fields} <= set(typing.get_type_hints(cls))
    assert list(inspect.signature(cls.objective).parameters) == ["self", "cross_entropy", "distance"]
    assert list(inspect.signature(cls.outgoing).parameters) == ["self", "peers", "generator"]


@every_attack
def test_the_first_line_is_a_sentence_and_the_paper_is_named(name: str) -> None:
    first, blank, rest = (inspect.getdoc(inspect.getmodule(attack_class(name))) or "").split("\n", 2)
    assert first.endswith(".")
    assert blank == ""
    assert rest.startswith("Paper: ")


@every_attack
def test_the_objective_is_a_finite_scalar_that_can_be_descended(name: str) -> None:
    for cross_entropy, distance in (scalars(), scalars(distance=0.0), scalars(cross_entropy=0.0)):
        loss = made(name).objective(cross_entropy, distance)
        assert loss.shape == ()
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        slopes = torch.autograd.grad(loss, (cross_entropy, distance), allow_unused=True)
        assert any(slope is not None and slope != 0 for slope in slopes)
        assert all(slope is None or slope.isfinite() for slope in slopes)


@every_attack
@however_many
def test_what_is_sent_is_finite_and_has_the_shape_and_dtype_of_an_update(name: str, rows: int) -> None:
    for given in (peers(rows), torch.zeros(rows, LENGTH)):
        sent = made(name).outgoing(given, generator())
        assert sent.shape == (LENGTH,)
        assert sent.dtype == torch.float32
        assert sent.isfinite().all()
        assert not sent.requires_grad


@every_attack
@however_many
def test_it_trains_otherwise_than_an_honest_client_or_sends_something_else(name: str, rows: int) -> None:
    cross_entropy, distance = scalars()
    trains_otherwise = not torch.equal(made(name).objective(cross_entropy, distance), cross_entropy)
    sends_otherwise = not torch.equal(made(name).outgoing(peers(rows), generator()), peers(rows)[0])
    assert trains_otherwise or sends_otherwise


@every_attack
@however_many
def test_input_and_global_randomness_are_left_alone(name: str, rows: int) -> None:
    given, (cross_entropy, distance) = peers(rows), scalars()
    before = given.clone()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    made(name).objective(cross_entropy, distance)
    sent = made(name).outgoing(given, generator())
    sent.zero_()
    assert (cross_entropy.item(), distance.item()) == (1.5, pytest.approx(0.7))
    assert torch.equal(given, before), "what is sent shares memory with what was given"
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002


@every_attack
@however_many
def test_it_depends_on_the_generator_exactly_where_it_draws_from_it(name: str, rows: int) -> None:
    attack, used = made(name), generator(3)
    first = attack.outgoing(peers(rows), used)
    assert torch.equal(first, attack.outgoing(peers(rows), generator(3)))
    draws = not torch.equal(used.get_state(), generator(3).get_state())
    assert draws == (not torch.equal(first, attack.outgoing(peers(rows), generator(4))))
    assert torch.equal(attack.objective(*scalars()), attack.objective(*scalars()))


@every_attack
def test_it_says_what_it_must_know_and_who_uses_what_accomplices_share_says_that_too(name: str) -> None:
    assert needs(name)
    assert Knowledge.OWN_DATA in needs(name)
    if depends_on_accomplices(made(name)):
        assert Knowledge.OTHER_ATTACKERS in needs(name)


@dataclasses.dataclass(frozen=True)
class Sends:
    """An attack that sends a made function of the updates."""

    made: typing.Callable[[Tensor], Tensor]

    def objective(self, cross_entropy: Tensor, distance: Tensor) -> Tensor:
        return cross_entropy

    def outgoing(self, peers: Tensor, generator: torch.Generator) -> Tensor:
        return self.made(peers)


@pytest.mark.parametrize(
    ("sends", "depends"),
    [
        (lambda peers: 3 * peers[0], False),
        (lambda peers: peers.mean(dim=0), True),
        (lambda peers: peers[0] / len(peers), True),
        (lambda peers: peers[-1], True),
    ],
    ids=["own", "mean", "how many", "the last"],
)
def test_this_suite_sees_who_uses_them(sends: typing.Callable[[Tensor], Tensor], depends: bool) -> None:
    assert depends_on_accomplices(Sends(sends)) == depends


@every_attack
@pytest.mark.parametrize("shape", [(LENGTH,), (0, LENGTH), (2, 5, 5)])
def test_peers_of_another_shape_are_refused_with_the_shape(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"needs peers of shape \(k, d\)"):
        made(name).outgoing(torch.ones(shape), generator())


@every_attack
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0])
def test_numbers_that_make_no_attack_are_refused(name: str, value: float) -> None:
    for option in options_of(attack_class(name), float):
        if value != -1 or (name, option) not in SIGNED:
            with pytest.raises(ValueError, match=f"{name} needs .*{option}.* = {value}"):
                made(name, **{option: value})


@every_attack
def test_counts_below_nought_are_refused(name: str) -> None:
    for option in options_of(attack_class(name), int):
        with pytest.raises(ValueError, match=f"{name} needs .*{option}.* = -1"):
            made(name, **{option: -1})


@every_attack
def test_a_client_that_plays_it_trains_and_sends_as_it_says(name: str) -> None:
    attack = typing.cast(TrainingAttack, plugins.load("attack", name))
    role, sight = TrainingPoisoning(attack), Sight(benign=lambda: peers()[0], last_step=lambda: None)
    assert role.edits_objective
    assert role.edits_update
    assert torch.equal(role.objective(*scalars()), attack.objective(*scalars()))
    sent = role.outgoing(peers()[0], peers(), generator(), sight)
    assert torch.equal(sent, attack.outgoing(peers(), generator()))


def test_constrain_and_scale_weighs_the_loss_and_the_distance():
    """Equation 4 by hand: 0.75 * 2 + 0.25 * 8."""
    from thornbed.attacks.training.constrain_and_scale import ConstrainAndScale

    loss, distance = torch.tensor(2.0, requires_grad=True), torch.tensor(8.0, requires_grad=True)
    found = ConstrainAndScale(alpha=0.75).objective(loss, distance)
    found.backward()
    assert (found.item(), loss.grad.item(), distance.grad.item()) == (3.5, 0.75, 0.25)
