"""What every attack on training data keeps to; a new file of attacks/data is covered without a word here."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
import pkgutil
import random
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import attacks.data
from tasks import Samples

NAMES = sorted(module.name for module in pkgutil.iter_modules(attacks.data.__path__) if not module.name.startswith("_"))
NUM_CLASSES, SIZE, ROWS = 10, 8, 40


def attack_class(name: str) -> type:
    module = importlib.import_module(f"attacks.data.{name}")
    return next(value for key, value in vars(module).items() if key.lower() == name.replace("_", ""))


def samples_of(modality: str) -> Samples:
    """Return samples of every class, in every modality an attack can name."""
    generator = torch.Generator().manual_seed(11)
    x: Tensor = {
        "image": torch.rand(ROWS, 3, SIZE, SIZE, generator=generator),
        "table": torch.randn(ROWS, 6, generator=generator),
        "text": torch.randint(100, (ROWS, 6), generator=generator),
    }[modality]
    return Samples(x, torch.arange(ROWS) % NUM_CLASSES)


CASES = [(name, modality) for name in NAMES for modality in sorted(attack_class(name).modalities)]


@pytest.fixture(autouse=True)
def folder_with_edge_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let default options find their files: attacks read them from the working directory."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, SIZE, SIZE, 3), dtype=np.uint8)
    np.savez(tmp_path / "southwest.npz", x_train=pixels[:20], x_test=pixels[20:])
    monkeypatch.chdir(tmp_path)


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same(first: Samples, second: Samples) -> bool:
    return torch.equal(first.x, second.x) and torch.equal(first.y, second.y)


def test_the_folder_is_not_empty() -> None:
    assert {"pixel_trigger", "edge_case", "label_flip"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_frozen_dataclass_of_keyword_options_with_defaults(name: str) -> None:
    cls = attack_class(name)
    attack = cls()
    fields = dataclasses.fields(cls)
    assert fields
    assert all(field.kw_only and field.default is not dataclasses.MISSING for field in fields)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(attack, fields[0].name, fields[0].default)
    # the command line reads the types of the options
    assert {field.name for field in fields} <= set(typing.get_type_hints(cls))
    assert cls.modalities <= {"image", "table", "text"}
    assert isinstance(cls.modalities, frozenset)
    assert isinstance(cls.backdoor, bool)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_line_is_a_sentence_and_the_paper_is_named(name: str) -> None:
    text = inspect.getdoc(importlib.import_module(f"attacks.data.{name}")) or ""
    first, blank, rest = text.split("\n", 2)
    assert first.endswith(".")
    assert blank == ""
    assert rest.startswith("Paper: ")


@pytest.mark.parametrize(("name", "modality"), CASES)
def test_poison_changes_something_and_gives_samples_of_the_same_kind(name: str, modality: str) -> None:
    samples = samples_of(modality)
    poisoned = attack_class(name)().poison(samples, generator())
    assert not same(samples, poisoned)
    assert poisoned.x.shape[1:] == samples.x.shape[1:]
    assert poisoned.x.dtype == samples.x.dtype
    assert poisoned.y.dtype == torch.int64
    assert poisoned.y.min() >= 0
    assert poisoned.y.max() < NUM_CLASSES
    assert poisoned.x.is_floating_point() == samples.x.is_floating_point()


@pytest.mark.parametrize(("name", "modality"), CASES)
def test_poison_and_measure_leave_their_input_and_the_global_randomness_alone(name: str, modality: str) -> None:
    samples = samples_of(modality)
    x, y = samples.x.clone(), samples.y.clone()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    attack = attack_class(name)()
    attack.poison(samples, generator())
    attack.measure(samples)
    assert torch.equal(samples.x, x)
    assert torch.equal(samples.y, y)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002


@pytest.mark.parametrize(("name", "modality"), CASES)
def test_poison_depends_on_the_generator_exactly_where_it_draws_from_it(name: str, modality: str) -> None:
    samples = samples_of(modality)
    attack = attack_class(name)()
    used = generator(3)
    first = attack.poison(samples, used)
    assert same(first, attack.poison(samples, generator(3)))
    draws = not torch.equal(used.get_state(), generator(3).get_state())
    assert draws == (not same(first, attack.poison(samples, generator(4))))


@pytest.mark.parametrize(("name", "modality"), CASES)
def test_measure_gives_one_wanted_label_and_never_a_sample_that_has_it_already(name: str, modality: str) -> None:
    test = samples_of(modality)
    attacked = attack_class(name)().measure(test)
    assert attacked is not None
    assert len(attacked) > 0
    assert attacked.x.shape[1:] == test.x.shape[1:]
    assert attacked.x.dtype == test.x.dtype
    assert attacked.y.dtype == torch.int64
    wanted = attacked.y.unique()
    assert len(wanted) == 1
    of_target = test.x[test.y == wanted]
    assert not any(torch.equal(row, untouched) for row in attacked.x for untouched in of_target)


@pytest.mark.parametrize("name", [name for name, modality in CASES if modality == "image"])
def test_encoded_pixels_are_decoded(name: str) -> None:
    attack = attack_class(name)()
    encoded = Samples((samples_of("image").x * 255).to(torch.uint8), samples_of("image").y)
    assert same(attack.poison(encoded, generator()), attack.poison(encoded.decoded(), generator()))
    first, second = attack.measure(encoded), attack.measure(encoded.decoded())
    assert first is not None
    assert second is not None
    assert same(first, second)
    assert first.x.dtype == torch.float32
    assert first.x.max() <= 1


@pytest.mark.parametrize(("name", "modality"), CASES)
def test_no_samples_are_no_problem(name: str, modality: str) -> None:
    nothing = samples_of(modality).select(torch.arange(0))
    assert len(attack_class(name)().poison(nothing, generator())) == 0


@pytest.mark.parametrize(("name", "modality"), CASES)
def test_check_accepts_a_task_that_fits_and_names_both_numbers_where_the_label_does_not(
    name: str, modality: str
) -> None:
    attack = attack_class(name)()
    shape = tuple(samples_of(modality).x.shape[1:])
    attack.check(NUM_CLASSES, shape)
    largest = max(value for key, value in vars(attack).items() if key in ("target", "source"))
    with pytest.raises(ValueError, match=f"{name} needs (target|source).* = {largest}, classes = {largest}"):
        attack.check(largest, shape)


@pytest.mark.parametrize("name", NAMES)
def test_labels_and_shares_out_of_range_are_refused(name: str) -> None:
    cls = attack_class(name)
    refused = {"target": [-1], "source": [-1], "fraction": [-0.5, 1.5, math.nan]}
    for field in dataclasses.fields(cls):
        for value in refused.get(field.name, []):
            with pytest.raises(ValueError, match=f"{name} needs .*{field.name}.* = {value}"):
                cls(**{field.name: value})
