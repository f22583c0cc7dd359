"""What every inference defense keeps to; a new file of defenses/inference is covered without a word here."""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Iterator
from dataclasses import fields, is_dataclass

import pytest
import torch
from torch import Tensor

import thornbed.defenses.inference
from thornbed.clients.local_training import one_thread
from thornbed.defenses.fusion_head import HeadTraining
from thornbed.defenses.inference import ABSTAINS, InferenceDefense, Query

NAMES = sorted(
    module.name for module in pkgutil.iter_modules(thornbed.defenses.inference.__path__) if module.name[0] != "_"
)
every_defense = pytest.mark.parametrize("name", NAMES)
TRAINING = HeadTraining(hidden=(8,), epochs=8, learning_rate=1e-2)
ALL = torch.ones(4, dtype=torch.bool)


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    with one_thread():
        yield


def defense(name: str) -> InferenceDefense:
    """Make the defense with its defaults, but for few trials and mild training attacks, which cost time."""
    module = importlib.import_module(f"thornbed.defenses.inference.{name}")
    kind = next(value for key, value in vars(module).items() if key.lower() == name.replace("_", ""))
    assert is_dataclass(kind)
    small = {"trials": 40, "steps": 2, "step_size": 0.1}
    return kind(**{field.name: small[field.name] for field in fields(kind) if field.name in small})


def table(n: int = 200) -> tuple[Tensor, Tensor]:
    """Four agents that all see which of three classes it is."""
    labels = torch.arange(n) % 3
    signal = 2 * torch.nn.functional.one_hot(labels, 3).float()[:, None].expand(-1, 4, -1)
    return signal + 0.3 * torch.randn(n, 4, 3, generator=source(1)), labels


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def query(features: Tensor) -> Query:
    return Query(
        features=features, usable=ALL.expand(len(features), -1), corrupted=torch.arange(4) == 3, honest=features
    )


def test_the_folder_is_not_empty() -> None:
    assert {
        "plain", "randomized_smoothing", "randomized_smoothing_block", "randomized_ablation", "adversarial_training",
        "block_adversarial_training", "oracle",
    } <= set(NAMES)  # fmt: skip


@every_defense
def test_it_learns_predicts_and_leaves_alone_what_it_was_given(name: str) -> None:
    features, labels = table()
    before, state = features.clone(), torch.get_rng_state()
    fitted = defense(name).fit(features, labels, 3, source(), TRAINING)
    found = defense(name).predict(fitted.head, query(features), source())
    assert len(fitted.losses) == 8
    assert fitted.losses[-1] < fitted.losses[0]
    assert not any(parameter.requires_grad for parameter in fitted.head.parameters())
    assert float((found.labels == labels).float().mean()) > 0.9
    assert found.labels.dtype == torch.int64
    assert found.shares.shape == (200, 3)
    torch.testing.assert_close(found.shares.sum(dim=1), torch.ones(200))
    assert torch.equal(found.shares.argmax(dim=1), found.labels)
    assert torch.equal(features, before)
    assert torch.equal(torch.get_rng_state(), state)
    again = defense(name).predict(
        defense(name).fit(features, labels, 3, source(), TRAINING).head, query(features), source()
    )
    assert torch.equal(again.shares, found.shares)


@every_defense
def test_a_row_that_is_not_finite_is_not_answered_and_others_are(name: str) -> None:
    features, labels = table(30)
    head = defense(name).fit(features, labels, 3, source(), TRAINING).head
    broken = features.clone()
    broken[4] = math.nan
    found = defense(name).predict(head, query(broken), source())
    assert (found.labels == ABSTAINS).nonzero().tolist() == [[4]]
    assert bool(found.shares[4].isnan().all())
    if found.tolerated is not None:
        assert int(found.tolerated[4]) == -1
    if found.radius is not None:
        assert float(found.radius[4]) == 0


@every_defense
def test_who_is_told_more_than_a_fusion_centre_knows_says_so_and_cannot_do_without(name: str) -> None:
    features, labels = table(30)
    made = defense(name)
    head = made.fit(features, labels, 3, source(), TRAINING).head
    assert made.told <= {"corrupted", "honest"}
    blind = Query(features=features, usable=ALL.expand(30, -1))
    if made.told:
        with pytest.raises(ValueError, match=f"^{name} must be told"):
            made.predict(head, blind, source())
    else:
        told = made.predict(head, query(features), source())
        assert torch.equal(made.predict(head, blind, source()).shares, told.shares)


@every_defense
def test_features_that_do_not_fit_are_refused(name: str) -> None:
    features, labels = table(30)
    made = defense(name)
    head = made.fit(features, labels, 3, source(), TRAINING).head
    flat = features[:, :, 0]
    wrong = Query(features=flat, usable=torch.ones(30, 4, dtype=torch.bool), corrupted=ALL, honest=flat)
    with pytest.raises(ValueError, match=r"needs features \(n, M, d\) and one bool a block"):
        made.predict(head, wrong, source())


@every_defense
def test_an_attacker_can_differentiate_through_it(name: str) -> None:
    features, labels = table()
    made = defense(name)
    head = made.fit(features, labels, 3, source(), TRAINING).head
    given = features.clone().requires_grad_()
    logits = made.logits(head, given)
    assert logits.shape == (200, 3)
    assert float((logits.argmax(dim=1) == labels).float().mean()) > 0.9
    slope = torch.autograd.grad(logits.sum(), given)[0]
    assert slope.shape == features.shape
    assert bool(slope.isfinite().all())
