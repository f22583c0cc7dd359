"""What every defense of a vertical server keeps to; a new file of defenses/vertical is covered without a word here."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import random

import pytest
import torch
from torch import Tensor

import thornbed.defenses.vertical
from thornbed.defenses.reporting import listening
from thornbed.defenses.vertical import VerticalDefense
from thornbed.tasks.split.top_model import two_layers
from thornbed.tasks.split.top_work import TopWork

NAMES = sorted(
    module.name for module in pkgutil.iter_modules(thornbed.defenses.vertical.__path__) if module.name[0] != "_"
)
every_defense = pytest.mark.parametrize("name", NAMES)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def defense_called(name: str) -> type[VerticalDefense]:
    module = importlib.import_module(f"thornbed.defenses.vertical.{name}")
    return next(
        each for key, each in vars(module).items() if isinstance(each, type) and key.lower() == name.replace("_", "")
    )


def sent() -> tuple[Tensor, Tensor]:
    embeddings = torch.randn(40, 4, 3, generator=source(1))
    embeddings[0, 0] *= 50
    used = torch.ones(40, 4, dtype=torch.bool)
    used[3, 2] = False
    return embeddings, used


def test_the_folder_is_not_empty() -> None:
    expected = {"gradient_noise", "gradient_clipping", "embedding_clipping", "block_dropout", "outlier_trimming"}
    assert expected <= set(NAMES)


@every_defense
def test_it_is_a_frozen_dataclass_with_defaults_that_says_where_it_is_from(name: str) -> None:
    made = defense_called(name)()
    assert isinstance(made, VerticalDefense)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, dataclasses.fields(made)[0].name, 1)
    first, blank, rest = (inspect.getdoc(inspect.getmodule(type(made))) or "").split("\n", 2)
    assert first.endswith(".")
    assert blank == ""
    assert rest.startswith(("Paper: ", "Source: "))


@every_defense
def test_it_acts_and_says_so_without_touching_what_it_was_given_or_the_global_generator(name: str) -> None:
    defense = defense_called(name)()
    embeddings, used = sent()
    before, state = (embeddings.clone(), used.clone()), (torch.get_rng_state(), random.getstate())
    with listening() as figures:
        admitted = defense.admit(embeddings, used, source(), training=True)
        released = defense.release(embeddings, source())
    assert torch.equal(embeddings, before[0])
    assert torch.equal(used, before[1])
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]
    changed = not torch.equal(admitted[0], embeddings) or not torch.equal(admitted[1], used)
    assert changed or not torch.equal(released, embeddings)
    assert any(value > 0 for key, value in figures.items() if key.endswith("_share"))
    assert admitted[0].shape == released.shape == embeddings.shape
    assert not bool((admitted[1] & ~used).any())  # what is absent stays absent
    again = defense.admit(embeddings, used, source(), training=True)
    assert all(torch.equal(one, two) for one, two in zip(admitted, again))
    assert torch.equal(released, defense.release(embeddings, source()))


@every_defense
def test_a_server_learns_behind_it_and_every_party_gets_a_finite_gradient(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        top = two_layers(4, 3, 2, hidden=8)
    work = TopWork(top, lambda parameters: torch.optim.Adam(parameters, lr=0.02), guard=defense_called(name)())
    embeddings, present = torch.randn(200, 4, 3, generator=source(1)), torch.ones(4, dtype=torch.bool)
    y = (embeddings[:, :, 0].sum(dim=1) > 0).long()
    losses, generator = [], source(2)
    for _ in range(60):
        result = work.step(embeddings, present, y, generator)
        losses.append(result.loss)
        assert bool(result.gradients.isfinite().all())
    assert losses[-1] < 0.7 * losses[0]
    assert bool(result.gradients.any())
    accuracy = (work.predict(embeddings, present, generator).argmax(dim=1) == y).double().mean()
    assert accuracy > 0.8


@every_defense
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_options_out_of_range_are_refused_with_the_name(name: str, value: float) -> None:
    for field in dataclasses.fields(defense_called(name)):
        with pytest.raises(ValueError, match=f"{name} needs .*{field.name} = {value}"):
            defense_called(name)(**{field.name: value})
