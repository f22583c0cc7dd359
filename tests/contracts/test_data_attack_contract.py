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

import thornbed.attacks.data
from thornbed.attacks.data import DataAttack, Divided, GroupMember, Leaking
from thornbed.tasks import Samples

NAMES = sorted(
    module.name for module in pkgutil.iter_modules(thornbed.attacks.data.__path__) if not module.name.startswith("_")
)
NUM_CLASSES, SIZE, ROWS = 10, 16, 40
VOCABULARY = {"greek": 1, "director": 2} | {f"word{i}": i for i in range(3, 100)}


def attack_class(name: str) -> type:
    module = importlib.import_module(f"thornbed.attacks.data.{name}")
    return next(value for key, value in vars(module).items() if key.lower() == name.replace("_", ""))


def samples_of(modality: str) -> Samples:
    """Return samples of every class, of every modality; half of the images are green, for semantic."""
    generator = torch.Generator().manual_seed(11)
    y = torch.arange(ROWS) % NUM_CLASSES
    if modality == "text":
        words = torch.randint(3, 100, (ROWS, 9), generator=generator)
        return Samples(words.where(torch.arange(9) < 4 + torch.arange(ROWS)[:, None] % 6, 0), y, VOCABULARY)
    x: Tensor = {
        "image": torch.rand(ROWS, 3, SIZE, SIZE, generator=generator),
        "table": torch.randn(ROWS, 45, generator=generator),
    }[modality]
    if modality == "image":
        x[: ROWS // 2, [0, 2]] *= 0.5
    return Samples(x, y)


CASES = [(name, modality) for name in NAMES for modality in sorted(attack_class(name).modalities)]
LEAKING = [(name, modality) for name, modality in CASES if issubclass(attack_class(name), Leaking)]
DIVIDED = [(name, modality) for name, modality in CASES if issubclass(attack_class(name), Divided)]
# Attacks that are measured on samples of their own, of one class that is not the target.
OWN_TEST_SAMPLES = {("edge_case", "image")}


@pytest.fixture(autouse=True)
def folder_with_edge_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let default options find their files: attacks read them from the working directory."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, SIZE, SIZE, 3), dtype=np.uint8)
    np.savez(tmp_path / "southwest.npz", x_train=pixels[:20], x_test=pixels[20:])
    monkeypatch.chdir(tmp_path)


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def wanted_of(attack: DataAttack, test: Samples) -> int:
    """Return the label that the attacker wants."""
    attacked = attack.measure(test)
    assert attacked is not None
    return int(attacked.y[0])


def changed(before: Samples, after: Samples) -> Tensor:
    """Return which rows of `after` are not those of `before`, added ones among them."""
    kept = len(before)
    pixels = (after.x[:kept] != before.x).flatten(1).any(dim=1)
    return torch.cat([pixels | (after.y[:kept] != before.y), torch.ones(len(after) - kept, dtype=torch.bool)])


def same(first: Samples, second: Samples) -> bool:
    return torch.equal(first.x, second.x) and torch.equal(first.y, second.y)


def test_the_folder_is_not_empty() -> None:
    named = {"pixel_trigger", "edge_case", "label_flip", "dba", "semantic", "value_trigger", "text_trigger"}
    assert named <= set(NAMES)
    assert {modality for _, modality in CASES} == {"image", "table", "text"}
    assert {name for name, _ in LEAKING} >= {"edge_case", "value_trigger", "text_trigger"}
    assert {name for name, _ in DIVIDED} >= {"dba"}


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
    text = inspect.getdoc(importlib.import_module(f"thornbed.attacks.data.{name}")) or ""
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


@pytest.mark.parametrize(("name", "modality"), CASES)
def test_poison_changes_no_sample_but_those_it_labels_as_it_wants(name: str, modality: str) -> None:
    samples, attack = samples_of(modality), attack_class(name)()
    poisoned = attack.poison(samples, generator())
    touched = changed(samples, poisoned)
    assert touched.any()
    assert not touched.all()
    assert (poisoned.y[touched] == wanted_of(attack, samples)).all()
    if hasattr(attack, "fraction"):
        assert touched.sum() <= round(attack.fraction * len(poisoned))


@pytest.mark.parametrize(("name", "modality"), CASES)
def test_success_is_measured_on_test_samples_that_are_not_of_the_target_class(name: str, modality: str) -> None:
    test, attack = samples_of(modality), attack_class(name)()
    wanted = wanted_of(attack, test)
    whole, without = attack.measure(test), attack.measure(test.select(test.y != wanted))
    assert whole is not None
    assert without is not None
    assert same(whole, without)
    only_target = attack.measure(test.select(test.y == wanted))
    if (name, modality) in OWN_TEST_SAMPLES:
        assert attack.true_label != wanted
        assert only_target is not None
        assert same(only_target, whole)
    else:
        assert only_target is None
        assert len(whole) <= (test.y != wanted).sum()


@pytest.mark.parametrize(("name", "modality"), CASES)
def test_a_vocabulary_stays_with_the_samples(name: str, modality: str) -> None:
    samples, attack = samples_of(modality), attack_class(name)()
    attacked = attack.measure(samples)
    assert attacked is not None
    assert attack.poison(samples, generator()).vocabulary == samples.vocabulary
    if modality == "text":
        assert attacked.vocabulary == VOCABULARY


@pytest.mark.parametrize(("name", "modality"), LEAKING)
def test_what_leaks_to_honest_clients_is_rightly_labelled_and_only_where_it_was_asked_for(
    name: str, modality: str
) -> None:
    samples, member = samples_of(modality), GroupMember(1, 3)
    assert same(attack_class(name)().leak(samples, member, generator()), samples)
    x, y = samples.x.clone(), samples.y.clone()
    attack = attack_class(name)(benign_share=0.5, fraction=0.5)
    leaked = attack.leak(samples, member, generator())
    touched = changed(samples, leaked)
    assert touched.any()
    assert (leaked.y[touched] != wanted_of(attack, samples)).all()
    assert torch.equal(leaked.y[: len(samples)], y)
    assert torch.equal(samples.x, x)
    assert same(leaked, attack.leak(samples, member, generator()))


@pytest.mark.parametrize(("name", "modality"), DIVIDED)
def test_members_of_a_divided_attack_differ_and_are_measured_alike(name: str, modality: str) -> None:
    samples, attack = samples_of(modality), attack_class(name)()
    members = [attack.for_member(GroupMember(rank, 2)) for rank in range(2)]
    first, second = (member.poison(samples, generator()) for member in members)
    assert not same(first, second)
    for member in members:
        ours, theirs = member.measure(samples), attack.measure(samples)
        assert ours is not None
        assert theirs is not None
        assert same(ours, theirs)


@pytest.mark.parametrize(("rank", "count"), [(2, 2), (-1, 3), (0, 0)])
def test_a_member_is_one_of_the_count(rank: int, count: int) -> None:
    with pytest.raises(ValueError, match=f"0 <= rank < count: rank = {rank}, count = {count}"):
        GroupMember(rank, count)


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
    largest = max(wanted_of(attack, samples_of(modality)), getattr(attack, "source", 0))
    with pytest.raises(ValueError, match=f"{name} needs (target|source).* = {largest}, classes = {largest}"):
        attack.check(largest, shape)


@pytest.mark.parametrize("name", NAMES)
def test_labels_and_shares_out_of_range_are_refused(name: str) -> None:
    cls = attack_class(name)
    refused = {"target": [-1], "source": [-1], "fraction": [-0.5, 1.5, math.nan]}
    refused |= {"true_label": [-1], "benign_share": [-0.5, 1.5, math.nan]}
    for field in dataclasses.fields(cls):
        for value in refused.get(field.name, []):
            with pytest.raises(ValueError, match=f"{name} needs .*{field.name}.* = {value}"):
                cls(**{field.name: value})
