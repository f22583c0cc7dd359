"""What every attack on inference keeps to; a new file of attacks/inference is covered without a word here."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import thornbed.attacks.inference
from thornbed.attacks import Knowledge
from thornbed.attacks.inference import QuerySight, SentEmbeddings

NAMES = sorted(
    module.name for module in pkgutil.iter_modules(thornbed.attacks.inference.__path__) if module.name[0] != "_"
)
every_attack = pytest.mark.parametrize("name", NAMES)
WEIGHT = torch.randn(12, 3, generator=torch.Generator().manual_seed(1))


def attack(name: str) -> Callable[..., SentEmbeddings]:
    return getattr(importlib.import_module(f"thornbed.attacks.inference.{name}"), name)


def network(embeddings: Tensor, observed: Tensor) -> Tensor:
    return torch.where(observed[:, None], embeddings, 0.0).flatten(1) @ WEIGHT


def sent() -> SentEmbeddings:
    drawn = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(2))
    return SentEmbeddings(embeddings=drawn, observed=torch.tensor([True, True, True, False]))


SIGHT = QuerySight(labels=torch.arange(6) % 3, network=network, defended=network)


def test_the_folder_is_not_empty() -> None:
    assert {"feature_flip", "targeted_pgd", "untargeted_pgd", "missing", "adaptive_pgd"} <= set(NAMES)


@every_attack
def test_the_signature_is_that_of_the_folder_and_the_module_says_what_its_attacker_knows(name: str) -> None:
    parameters = list(inspect.signature(attack(name)).parameters.values())
    assert [parameter.name for parameter in parameters[:3]] == ["sent", "agents", "sight"]
    for option in parameters[3:]:
        assert option.kind is option.KEYWORD_ONLY
        assert option.default is not option.empty
        assert option.annotation is not option.empty
    module = importlib.import_module(f"thornbed.attacks.inference.{name}")
    assert isinstance(module.NEEDS, frozenset)
    assert all(isinstance(each, Knowledge) for each in module.NEEDS)


@every_attack
@pytest.mark.parametrize("agents", [[0], [1, 2], []])
def test_only_the_agents_change_and_nothing_that_was_given(name: str, agents: list[int]) -> None:
    given = sent()
    before = given.embeddings.clone(), given.observed.clone()
    found = attack(name)(given, agents, SIGHT)
    assert torch.equal(given.embeddings, before[0])
    assert torch.equal(given.observed, before[1])
    assert found.embeddings.shape == given.embeddings.shape
    others = [agent for agent in range(4) if agent not in agents]
    assert torch.equal(found.embeddings[:, others], given.embeddings[:, others])
    assert torch.equal(found.observed[others], given.observed[others])
    assert not found.embeddings.requires_grad
    for agent in agents:
        gone = not bool(found.observed[agent])
        assert gone or not torch.equal(found.embeddings[:, agent], given.embeddings[:, agent])
        assert gone == bool(found.embeddings[:, agent].isnan().all())


@every_attack
def test_it_is_the_same_every_time_and_a_query_does_not_depend_on_others(name: str) -> None:
    state = torch.get_rng_state()
    one, two = (attack(name)(sent(), [1], SIGHT) for _ in range(2))
    torch.testing.assert_close(one.embeddings, two.embeddings, rtol=0, atol=0, equal_nan=True)
    first = SentEmbeddings(embeddings=sent().embeddings[:1], observed=sent().observed)
    alone = attack(name)(first, [1], QuerySight(labels=torch.tensor([0]), network=network, defended=network))
    torch.testing.assert_close(alone.embeddings[0], one.embeddings[0], equal_nan=True)
    assert torch.equal(torch.get_rng_state(), state)


@every_attack
@pytest.mark.parametrize(
    ("agents", "sentence"),
    [
        ([0, 1, 2, 3, 3], "more attackers than there are agents: 5 attackers, 4 agents"),
        ([4], "agents from 0 to 3: there is no agent 4"),
        ([-1], "agents from 0 to 3: there is no agent -1"),
        ([1, 1], "names an agent twice: 2 names, 1 agents"),
        ([1, 3], r"cannot use agent 3, which sent nothing \(1 such\)"),
    ],
)
def test_agents_that_cannot_attack_are_refused(name: str, agents: list[int], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} .*{sentence}"):
        attack(name)(sent(), agents, SIGHT)


@every_attack
def test_what_it_does_not_need_it_does_not_look_at(name: str) -> None:
    needs = importlib.import_module(f"thornbed.attacks.inference.{name}").NEEDS
    sight = QuerySight(
        labels=SIGHT.labels if Knowledge.TRUE_LABELS in needs else None,
        network=network if Knowledge.FUSION_MODEL in needs else None,
        defended=network if Knowledge.DEFENSE in needs else None,
    )
    expected, found = attack(name)(sent(), [1], SIGHT), attack(name)(sent(), [1], sight)
    torch.testing.assert_close(found.embeddings, expected.embeddings, equal_nan=True)
    if Knowledge.OTHER_EMBEDDINGS not in needs:
        others = sent().embeddings.clone()
        others[:, [0, 2, 3]] = 7.0
        blind = attack(name)(SentEmbeddings(embeddings=others, observed=sent().observed), [1], sight)
        torch.testing.assert_close(blind.embeddings[:, 1], expected.embeddings[:, 1], equal_nan=True)
