"""The fusion head and adversarial training: exact gradients by a loop, whom it makes robust, what is refused."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from thornbed.clients.local_training import one_thread
from thornbed.defenses.fusion_head import FusionHead, HeadTraining, fit_head
from thornbed.defenses.inference import Query
from thornbed.defenses.inference.adversarial_training import AdversarialTraining
from thornbed.defenses.inference.block_adversarial_training import BlockAdversarialTraining
from thornbed.defenses.inference.oracle import Oracle
from thornbed.defenses.inference.plain import Plain

LINEAR = HeadTraining(hidden=(), epochs=20, learning_rate=1e-2)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def table(n: int = 400) -> tuple[Tensor, Tensor]:
    """Four agents: the first one is nearly sure of the class and weak, the others are unsure."""
    labels = torch.arange(n) % 2
    features = torch.randn(n, 4, 2, generator=source(1))
    features[:, 1:, 0] += 1.5 * (2 * labels[:, None] - 1)
    features[:, 0] = 0.05 * features[:, 0] + 0.2 * (2 * labels[:, None] - 1)
    return features, labels


def test_losses_are_of_logits_and_fall() -> None:
    features, labels = table()
    with one_thread():
        fitted = fit_head(features, labels, 2, source(), HeadTraining(epochs=10, learning_rate=1e-2))
    assert fitted.losses[-1] < 0.3 * fitted.losses[0]
    assert fitted.losses[0] < 2  # of two even classes a guess costs log 2
    with torch.no_grad():
        logits = fitted.head(features)
    assert logits.shape == (400, 2)
    assert float((logits.argmax(dim=1) == labels).float().mean()) > 0.98
    # a row's logits do not depend on the rows beside it
    torch.testing.assert_close(fitted.head(features[:1]), logits[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("targeted", [True, False])
@pytest.mark.parametrize("block", [True, False])
def test_adversarial_rows_are_those_of_a_loop(targeted, block) -> None:
    features, labels = table(6)
    head = FusionHead(features, 2, source(), hidden=(5,))
    kind = BlockAdversarialTraining if block else AdversarialTraining
    defense = kind(steps=3, step_size=0.4, targeted=targeted)
    blocks = defense._blocks(features, source(4))
    assert blocks.sum(dim=1).tolist() == [1 if block else 4] * 6
    found = defense._adversarial(head, features, labels, 2, blocks)
    for i in range(6):
        x = features[i].clone()
        for _ in range(3):
            x.requires_grad_()
            wanted = 1 - labels[i] if targeted else labels[i]
            slope = torch.autograd.grad(F.cross_entropy(head(x[None]), wanted[None]), x)[0]
            x = x.detach()
            x[blocks[i]] += (-0.4 if targeted else 0.4) * slope[blocks[i]]
        torch.testing.assert_close(found[i], x)
    assert torch.equal(features, table(6)[0])


def test_block_training_leans_less_on_the_agent_that_is_easy_to_move() -> None:
    features, labels = table()
    with one_thread():
        plain = Plain().fit(features, labels, 2, source(), LINEAR).head
        robust = BlockAdversarialTraining(steps=5, step_size=0.1).fit(features, labels, 2, source(), LINEAR).head

    def leaning(head: FusionHead) -> float:
        """How far the margin moves for a step of the first agent, relative to one of another."""
        weight = head.layers[0].weight.detach().view(2, 4, 2) / head.scale[:, None]
        return float((weight[1] - weight[0])[0].norm() / (weight[1] - weight[0])[1:].norm())

    assert leaning(robust) < 0.8 * leaning(plain)


def test_the_same_generator_gives_the_same_head_and_another_one_another() -> None:
    features, labels = table(60)
    state = torch.get_rng_state()
    for kind in (Plain(), AdversarialTraining(steps=1), BlockAdversarialTraining(steps=1)):
        one, same, other = (
            kind.fit(features, labels, 2, source(seed), HeadTraining(epochs=2)).head for seed in (1, 1, 2)
        )
        assert torch.equal(one(features), same(features))
        assert not torch.equal(one(features), other(features))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_oracle_answers_as_if_nobody_attacked() -> None:
    features, labels = table()
    head = Plain().fit(features, labels, 2, source(), LINEAR).head
    ruined, nobody = torch.full_like(features, 1e9), torch.zeros(features.shape[:2], dtype=torch.bool)
    found = Oracle().predict(head, Query(features=ruined, usable=nobody, honest=features), source())
    clean = Plain().predict(head, Query(features=features, usable=~nobody), source())
    assert torch.equal(found.labels, clean.labels)
    assert Oracle().told == {"honest"}
    with pytest.raises(ValueError, match="oracle must be told the honest features, and the query has none"):
        Oracle().predict(head, Query(features=ruined, usable=nobody), source())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: HeadTraining(epochs=0), "epochs = 0, batch_size = 64"),
        (lambda: HeadTraining(hidden=(3, 0)), r"hidden = \(3, 0\)"),
        (lambda: HeadTraining(learning_rate=math.inf), "learning_rate = inf, weight_decay"),
        (lambda: AdversarialTraining(target=1), "needs targeted=True for a target: target = 1"),
        (lambda: AdversarialTraining(steps=0), "adversarial training needs steps >= 1: steps = 0"),
        (lambda: BlockAdversarialTraining(step_size=-1.0), r"finite step_size > 0: step_size = -1\.0"),
        (
            lambda: AdversarialTraining(targeted=True, target=2).fit(*table(8), 2, source(), LINEAR),
            "below the 2 classes: target = 2",
        ),
    ],
)
def test_options_out_of_range_are_refused(make, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()


def test_rows_that_cannot_be_trained_on_are_refused() -> None:
    features, labels = table(8)
    with pytest.raises(ValueError, match=r"one label a row: \(8, 4, 2\) and \(7,\)"):
        fit_head(features, labels[:7], 2, source(), LINEAR)
    with pytest.raises(ValueError, match="of 1 classes needs labels below that: they go from 0 to 1"):
        fit_head(features, labels, 1, source(), LINEAR)
    bad = features.clone()
    bad[2, 0, 0] = math.nan
    with pytest.raises(ValueError, match="finite embeddings: 1 of 8 rows are not"):
        fit_head(bad, labels, 2, source(), LINEAR)


@pytest.mark.parametrize(("target", "wanted"), [(None, [1, 2, 0]), (0, [0, 0, 0]), (2, [2, 2, 2])])
def test_a_target_is_a_class_of_its_own_or_the_one_after_the_true_one(target, wanted) -> None:
    features, labels = torch.randn(3, 4, 2, generator=source(1)), torch.arange(3)
    head = FusionHead(features, 3, source(), hidden=())
    defense = AdversarialTraining(steps=1, step_size=0.4, targeted=True, target=target)
    found = defense._adversarial(head, features, labels, 3, torch.ones(3, 4, dtype=torch.bool))
    x = features.clone().requires_grad_()
    [slope] = torch.autograd.grad(F.cross_entropy(head(x), torch.tensor(wanted), reduction="sum"), x)
    torch.testing.assert_close(found, features - 0.4 * slope)


def test_a_target_may_be_any_class_and_nothing_else() -> None:
    features, labels = table(20)
    for target in (0, 1):
        AdversarialTraining(targeted=True, target=target, steps=1).fit(features, labels, 2, source(), LINEAR)
    for target in (-1, 2):
        with pytest.raises(ValueError, match="needs a target below the 2 classes"):
            AdversarialTraining(targeted=True, target=target).fit(features, labels, 2, source(), LINEAR)
    for size in (0.0, math.inf, -1.0):
        with pytest.raises(ValueError, match="finite step_size > 0"):
            AdversarialTraining(step_size=size)


def test_one_block_is_drawn_out_of_all_agents_by_the_generator() -> None:
    features = torch.zeros(200, 5, 2)
    blocks = BlockAdversarialTraining()._blocks(features, source(2))
    assert blocks.shape == (200, 5)
    assert blocks.any(dim=0).all()
    torch.manual_seed(5)
    assert torch.equal(blocks, BlockAdversarialTraining()._blocks(features, source(2)))
    assert not torch.equal(blocks, BlockAdversarialTraining()._blocks(features, source(3)))
    # The last agent of the last row is one of them where a batch is as small as it can be.
    assert BlockAdversarialTraining()._blocks(features[:1, :1], source()).tolist() == [[True]]


@pytest.mark.parametrize("edge", [{"epochs": 1}, {"batch_size": 1}, {"hidden": (1,)}, {"weight_decay": 0.0}])
def test_the_smallest_head_is_one(edge) -> None:
    HeadTraining(**edge)


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"batch_size": 0}, {"hidden": (0,)}, {"weight_decay": math.inf}, {"learning_rate": 0.0}]
)
def test_what_is_no_training_of_a_head_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        HeadTraining(**wrong)
