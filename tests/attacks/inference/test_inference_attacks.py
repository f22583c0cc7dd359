"""Attacks on inference: their algebra by hand, plain gradient steps one query at a time, and through a defense."""

from __future__ import annotations

import doctest
import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import thornbed.attacks.inference
from thornbed.attacks import Knowledge
from thornbed.attacks.inference import QuerySight, SentEmbeddings, combined
from thornbed.attacks.inference.adaptive_pgd import NEEDS, adaptive_pgd
from thornbed.attacks.inference.feature_flip import feature_flip
from thornbed.attacks.inference.missing import missing
from thornbed.attacks.inference.targeted_pgd import targeted_pgd
from thornbed.attacks.inference.untargeted_pgd import untargeted_pgd
from thornbed.clients.local_training import one_thread
from thornbed.defenses.autoencoder_fit import fit_autoencoder
from thornbed.defenses.purification.copur import copur


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    with one_thread():
        yield


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


WEIGHT = torch.randn(6, 3, generator=source(1), dtype=torch.float64)


def linear(embeddings: Tensor, observed: Tensor) -> Tensor:
    """Logits of three classes for three agents of two numbers, not linear; who is silent counts as zero."""
    given = torch.where(observed[:, None], embeddings, 0.0)
    return torch.nn.functional.softplus(given.flatten(1)) @ WEIGHT + given.flatten(1) @ WEIGHT


def honest(n: int = 5) -> SentEmbeddings:
    drawn = torch.randn(n, 3, 2, generator=source(2), dtype=torch.float64)
    return SentEmbeddings(embeddings=drawn, observed=torch.ones(3, dtype=torch.bool))


LABELS = torch.tensor([0, 1, 2, 0, 1])
SIGHT = QuerySight(labels=LABELS, network=linear)


def test_the_algebra_of_the_flip() -> None:
    # e_i = -(1 + a) l_i, and its inner product with l is -(1 + a) times the sum of squares, as in the paper
    sent, given = honest(), honest().embeddings
    flipped = feature_flip(sent, [0, 2], QuerySight(), amplification=10.0).embeddings
    error = flipped - given
    torch.testing.assert_close(error[:, [0, 2]], -11 * given[:, [0, 2]])
    assert torch.equal(error[:, 1], torch.zeros(5, 2, dtype=torch.float64))
    inner = (error * given).sum(dim=(1, 2))
    torch.testing.assert_close(inner, -11 * given[:, [0, 2]].square().sum(dim=(1, 2)))


@pytest.mark.parametrize("targeted", [True, False])
def test_gradient_steps_are_those_of_a_loop_over_queries(targeted) -> None:
    sent = honest()
    attack = targeted_pgd if targeted else untargeted_pgd
    found = attack(sent, [1], SIGHT, steps=4, step_size=0.5).embeddings
    for i, label in enumerate(LABELS.tolist()):
        x = sent.embeddings[i].clone()
        for _ in range(4):
            x.requires_grad_()
            logits = linear(x[None], sent.observed)
            wanted = (label + 1) % 3 if targeted else label
            loss = F.cross_entropy(logits, torch.tensor([wanted]))
            slope = torch.autograd.grad(loss, x)[0]
            x = x.detach()
            x[1] += (-0.5 if targeted else 0.5) * slope[1]
        torch.testing.assert_close(found[i], x)


def test_a_target_can_be_named_and_is_reached() -> None:
    sent = honest()
    found = targeted_pgd(sent, [0, 1, 2], SIGHT, target=2, steps=200)
    assert linear(found.embeddings, found.observed).argmax(dim=1).tolist() == [2] * 5
    with pytest.raises(ValueError, match="targeted_pgd needs a target from 0 to 2: target = 3"):
        targeted_pgd(sent, [0], SIGHT, target=3)


def test_of_two_classes_the_other_one_is_the_target() -> None:
    def two(embeddings: Tensor, observed: Tensor) -> Tensor:
        return linear(embeddings, observed)[:, :2]

    labels = torch.tensor([0, 1, 1, 0, 1])
    found = targeted_pgd(honest(), [0, 1, 2], QuerySight(labels=labels, network=two), steps=200)
    assert torch.equal(two(found.embeddings, found.observed).argmax(dim=1), 1 - labels)


def test_the_combined_attack_sees_who_is_silent() -> None:
    sent = combined(honest(), [(missing, [0]), (lambda *given: targeted_pgd(*given, steps=3), [2])], SIGHT)
    assert sent.observed.tolist() == [False, True, True]
    assert bool(sent.embeddings[:, 0].isnan().all())
    silent = honest().embeddings.clone()
    silent[:, 0] = 0  # as the network takes who is silent
    alone = targeted_pgd(SentEmbeddings(embeddings=silent, observed=honest().observed), [2], SIGHT, steps=3)
    torch.testing.assert_close(sent.embeddings[:, 1:], alone.embeddings[:, 1:])
    with pytest.raises(ValueError, match="agent 1 is given 2 attacks; it can carry out one"):
        combined(honest(), [(missing, [1]), (feature_flip, [1])], SIGHT)
    with pytest.raises(ValueError, match=r"feature_flip cannot use agent 0, which sent nothing \(1 such\)"):
        feature_flip(sent, [0], SIGHT)


def plane() -> tuple[SentEmbeddings, QuerySight, QuerySight]:
    """Six agents that all send the same two numbers, whose first one's sign is the class; with and without copur."""
    rows = torch.randn(200, 1, 2, generator=source(3), dtype=torch.float64).repeat(1, 6, 1)
    rows = rows + 0.3 * torch.randn(rows.shape, generator=source(4), dtype=torch.float64)
    manifold = fit_autoencoder(rows, source(), bottleneck=2, drop=0.3).autoencoder
    queries, observed = rows[:6], torch.ones(6, dtype=torch.bool)
    labels = (queries[:, :, 0].mean(dim=1) > 0).long()

    def network(embeddings: Tensor, observed: Tensor) -> Tensor:
        first = embeddings[:, :, 0].mean(dim=1)
        return torch.stack([-first, first], dim=1)

    def defended(embeddings: Tensor, observed: Tensor) -> Tensor:
        found = copur(embeddings, observed, manifold, solver="reweighted", penalty_steps=0, steps=25)
        return network(found.features, observed)

    sent = SentEmbeddings(embeddings=queries, observed=observed)
    return (
        sent,
        QuerySight(labels=labels, network=network),
        QuerySight(labels=labels, network=network, defended=defended),
    )


def test_who_knows_the_defense_does_more_harm_to_it_than_who_does_not() -> None:
    sent, blind, seeing = plane()

    def margin(found: SentEmbeddings) -> Tensor:
        logits = seeing.defended(found.embeddings, found.observed)
        own = logits.gather(1, seeing.labels[:, None])[:, 0]
        return own - logits.gather(1, 1 - seeing.labels[:, None])[:, 0]

    clean = margin(sent)
    far = margin(untargeted_pgd(sent, [0, 1], blind, steps=30))
    flipped = margin(feature_flip(sent, [0, 1], blind))
    adaptive = margin(adaptive_pgd(sent, [0, 1], seeing, steps=3))
    assert float(clean.min()) >= -0.5
    assert bool((adaptive <= clean + 1e-9).all())  # the honest embeddings are among its starts
    assert bool((adaptive <= far + 1e-9).all())
    assert float((adaptive < far - 1e-2).double().mean()) > 0.7
    assert float(adaptive.mean()) < min(float(far.mean()), float(flipped.mean()))
    # of two classes being taken for the other is the same as not being taken for the own
    targeted = margin(adaptive_pgd(sent, [0, 1], seeing, steps=3, targeted=True))
    torch.testing.assert_close(targeted, adaptive, atol=0.05, rtol=0)


def test_what_an_attacker_must_know_is_said_and_asked_for() -> None:
    assert {Knowledge.DEFENSE, Knowledge.FUSION_MODEL, Knowledge.OTHER_EMBEDDINGS} <= NEEDS
    sent = honest()
    for attack in (targeted_pgd, untargeted_pgd):
        with pytest.raises(ValueError, match=f"{attack.__name__} must know the true labels, and sight has none"):
            attack(sent, [0], QuerySight(network=linear))
        with pytest.raises(ValueError, match=f"{attack.__name__} must know the fusion centre's model"):
            attack(sent, [0], QuerySight(labels=LABELS))
        with pytest.raises(ValueError, match="one label a query: 5 queries, 3 labels"):
            attack(sent, [0], QuerySight(labels=LABELS[:3], network=linear))
    with pytest.raises(ValueError, match="adaptive_pgd must know the defense, and sight has no defended network"):
        adaptive_pgd(sent, [0], SIGHT)
    with pytest.raises(ValueError, match="adaptive_pgd must know the fusion centre's model, and sight has none"):
        adaptive_pgd(sent, [0], QuerySight(labels=LABELS, defended=linear))


@pytest.mark.parametrize(
    ("attack", "options", "sentence"),
    [
        (feature_flip, {"amplification": 0.0}, r"finite amplification > 0: amplification = 0\.0"),
        (targeted_pgd, {"steps": 0}, "steps >= 1: steps = 0"),
        (adaptive_pgd, {"target": 1}, "targeted=True for a target: target = 1"),
        (untargeted_pgd, {"step_size": math.inf}, "finite step_size > 0: step_size = inf"),
        (adaptive_pgd, {"amplifications": ()}, r"finite amplifications, at least one: amplifications = \(\)"),
    ],
)
def test_options_out_of_range_are_refused(attack, options, sentence) -> None:
    with pytest.raises(ValueError, match=f"{attack.__name__} needs (a )?{sentence}"):
        attack(honest(), [0], SIGHT, **options)


def test_what_cannot_be_sent_is_refused() -> None:
    with pytest.raises(ValueError, match=r"floating-point embeddings \(n, M, d\): torch.int64 \(1, 2, 3\)"):
        SentEmbeddings(embeddings=torch.zeros(1, 2, 3, dtype=torch.int64), observed=torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"M = 2, observed is torch.bool \(3,\)"):
        SentEmbeddings(embeddings=torch.zeros(1, 2, 3), observed=torch.ones(3, dtype=torch.bool))


def test_the_example_in_the_documentation_runs() -> None:
    result = doctest.testmod(thornbed.attacks.inference)
    assert result.attempted >= 7
    assert result.failed == 0
