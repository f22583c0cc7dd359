"""What every hardening keeps to; a new file of defenses/hardening is covered without a word here."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import math
import pkgutil
import random
import typing
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import thornbed.defenses.hardening
from thornbed.clients.local_training import one_thread
from thornbed.defenses.reporting import listening

NAMES = sorted(
    module.name for module in pkgutil.iter_modules(thornbed.defenses.hardening.__path__) if module.name[0] != "_"
)
NUM_CLASSES, ROWS = 3, 30


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    with one_thread():
        yield


def hardening_class(name: str) -> type:
    module = importlib.import_module(f"thornbed.defenses.hardening.{name}")
    return next(value for key, value in vars(module).items() if key.lower() == name.replace("_", ""))


CASES = [(name, modality) for name in NAMES for modality in sorted(hardening_class(name).modalities)]


def samples_of(modality: str, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    """Return samples that `network_for` classifies rightly, in every modality a hardening can name."""
    x = 0.2 * torch.rand(rows, 12, generator=generator(11))
    y = torch.arange(rows) % NUM_CLASSES
    x[torch.arange(rows), y] += 0.7
    return {
        "image": lambda: x.view(rows, 3, 2, 2),
        "table": lambda: 10 * x - 3,
        "text": lambda: (100 * x).to(torch.int64),
    }[modality]().contiguous(), y


def network_for(modality: str) -> nn.Sequential:
    """Return a network with every kind of layer that has a mode, an own randomness or a memory; not all in one mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = [nn.EmbeddingBag(100, 12)] if modality == "text" else [nn.Flatten()]
        network = nn.Sequential(*head, nn.BatchNorm1d(12), nn.Dropout(0.3), nn.Linear(12, NUM_CLASSES))
    x, y = samples_of(modality)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(30):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()
    optimizer.zero_grad()
    network[-1].bias.grad = torch.ones(NUM_CLASSES)
    network[1].eval()
    return network


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_folder_is_not_empty() -> None:
    assert "flip" in NAMES
    assert CASES


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_frozen_dataclass_of_keyword_options_with_defaults(name: str) -> None:
    cls = hardening_class(name)
    hardening, fields = cls(), dataclasses.fields(cls)
    assert fields
    assert all(field.kw_only and field.default is not dataclasses.MISSING for field in fields)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(hardening, fields[0].name, fields[0].default)
    # the command line reads the types of the options
    assert {field.name for field in fields} <= set(typing.get_type_hints(cls))
    assert isinstance(cls.modalities, frozenset)
    assert cls.modalities <= {"image", "table", "text"}
    assert 0 <= hardening.min_confidence <= 1
    assert list(inspect.signature(cls.harden).parameters) == ["self", "network", "x", "y", "generator"]


@pytest.mark.parametrize("name", NAMES)
def test_the_first_line_is_a_sentence_and_the_paper_is_named(name: str) -> None:
    text = inspect.getdoc(importlib.import_module(f"thornbed.defenses.hardening.{name}")) or ""
    first, blank, rest = text.split("\n", 2)
    assert first.endswith(".")
    assert blank == ""
    assert rest.startswith("Paper: ")


@pytest.mark.parametrize(("name", "modality"), CASES)
def test_it_changes_samples_says_so_and_gives_samples_of_the_same_kind(name: str, modality: str) -> None:
    x, y = samples_of(modality)
    with listening() as figures:
        hardened, labels = hardening_class(name)().harden(network_for(modality), x, y, generator())
    assert hardened.shape[1:] == x.shape[1:]
    assert hardened.dtype == x.dtype
    assert hardened.isfinite().all()
    assert len(hardened) == len(labels)
    assert labels.dtype == torch.int64
    assert set(labels.tolist()) <= set(y.tolist())
    assert not torch.equal(hardened, x)
    assert not hardened.requires_grad
    assert 0 < figures["hardened_share"] <= 1  # type: ignore[operator]
    assert all(isinstance(value, int | float) and math.isfinite(value) for value in figures.values())
    if modality == "image":
        assert hardened.min() >= 0
        assert hardened.max() <= 1


@pytest.mark.parametrize(("name", "modality"), CASES)
def test_a_sample_that_is_changed_keeps_its_label_or_is_added_with_one(name: str, modality: str) -> None:
    x, y = samples_of(modality)
    hardened, labels = hardening_class(name)().harden(network_for(modality), x, y, generator())
    # what each row was made of: here every sample is closest to itself
    origin = torch.cdist(hardened.flatten(1), x.flatten(1)).argmin(dim=1)
    same = (hardened.flatten(1) == x.flatten(1)[origin]).all(dim=1)
    assert same.any()
    assert torch.equal(labels[same], y[origin][same])
    if len(hardened) == len(x):
        assert torch.equal(labels, y)


@pytest.mark.parametrize(("name", "modality"), CASES)
def test_network_input_and_global_randomness_are_left_alone(name: str, modality: str) -> None:
    (x, y), network = samples_of(modality), network_for(modality)
    before, given = copy.deepcopy(network), (x.clone(), y.clone())
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    hardened, labels = hardening_class(name)().harden(network, x, y, generator())
    hardened.zero_()
    if len(labels) != len(y):
        labels.zero_()
    assert torch.equal(x, given[0])
    assert torch.equal(y, given[1])
    for (key, value), old in zip(network.state_dict().items(), before.state_dict().values(), strict=True):
        assert torch.equal(value, old), key
    assert [layer.training for layer in network.modules()] == [layer.training for layer in before.modules()]
    assert [p.requires_grad for p in network.parameters()] == [p.requires_grad for p in before.parameters()]
    *grads, of_head = [parameter.grad for parameter in network.parameters()]
    assert all(grad is None for grad in grads)
    assert of_head is not None
    assert (of_head == 1).all()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002


@pytest.mark.parametrize(("name", "modality"), CASES)
def test_it_depends_on_the_generator_exactly_where_it_draws_from_it(name: str, modality: str) -> None:
    (x, y), network, hardening = samples_of(modality), network_for(modality), hardening_class(name)()
    used = generator(3)
    first = hardening.harden(network, x, y, used)[0]
    assert torch.equal(first, hardening.harden(network, x, y, generator(3))[0])
    draws = not torch.equal(used.get_state(), generator(3).get_state())
    assert draws == (not torch.equal(first, hardening.harden(network, x, y, generator(4))[0]))


@pytest.mark.parametrize(("name", "modality"), CASES)
@pytest.mark.parametrize("rows", [0, 1, 2])
def test_a_client_with_hardly_any_samples_is_no_problem(name: str, modality: str, rows: int) -> None:
    x, y = samples_of(modality, rows)
    with listening() as figures:
        hardened, labels = hardening_class(name)().harden(network_for(modality), x, y, generator())
    assert len(hardened) == len(labels) >= rows
    assert math.isfinite(figures["hardened_share"])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_samples_of_another_kind_are_refused_by_name(name: str) -> None:
    for modality in {"image", "table", "text"} - hardening_class(name).modalities:
        with pytest.raises(ValueError, match=f"^{name} "):
            hardening_class(name)().harden(network_for(modality), *samples_of(modality), generator())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_numbers_that_make_no_defense_are_refused(name: str, value: float) -> None:
    for field in dataclasses.fields(hardening_class(name)):
        if isinstance(field.default, float):
            with pytest.raises(ValueError, match=f"{name} needs .*{field.name}.* = {value}"):
                hardening_class(name)(**{field.name: value})
