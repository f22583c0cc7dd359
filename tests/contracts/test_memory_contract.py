"""What rules keep from round to round: tensors that a checkpoint can hold, replaced and never changed in place."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

import thornbed.defenses.aggregation
from thornbed.defenses.reporting import listening
from thornbed.defenses.server import Rule, Server, aggregate

NAMES = sorted(
    module.name for module in pkgutil.iter_modules(thornbed.defenses.aggregation.__path__) if module.name[0] != "_"
)
REMEMBERING = {"sparse_fed", "centered_clipping", "foolsgold"}
ROUNDS, CLIENTS, PER_ROUND, D = 5, 12, 9, 400


def rule_called(name: str) -> Rule:
    rule: Rule = getattr(importlib.import_module(f"thornbed.defenses.aggregation.{name}"), name)
    return rule


def a_round(rule: Rule, server_round: int, memory: dict[str, Tensor]) -> tuple[Tensor, dict[str, object]]:
    """Play one round with clients of its own; everything but the memory follows from its number."""
    generator = torch.Generator().manual_seed(server_round)
    clients = torch.randperm(CLIENTS, generator=generator)[:PER_ROUND].tolist()
    root = torch.randn(D, generator=generator)
    agreement = torch.tensor(clients)[:, None] / PER_ROUND  # some clients follow the common direction more than others
    updates = 0.01 * (agreement * root + torch.randn(PER_ROUND, D, generator=generator))
    server = Server(clients=clients, generator=generator, memory=memory, root_update=lambda num_samples: root)
    with listening() as figures:
        step = aggregate(rule, updates, torch.full((PER_ROUND,), 1 / PER_ROUND), server)
    return step, dict(figures)


@pytest.mark.parametrize("name", NAMES)
def test_memory_is_tensors_that_are_replaced_and_not_changed(name: str) -> None:
    memory: dict[str, Tensor] = {}
    for server_round in range(ROUNDS):
        before = dict(memory)
        copies = {key: tensor.clone() for key, tensor in before.items()}
        step, _ = a_round(rule_called(name), server_round, memory)
        step.fill_(7.0)  # what the caller does with the step reaches no memory
        assert all(isinstance(tensor, Tensor) for tensor in memory.values())
        assert all(tensor.isfinite().all() and not (tensor == 7.0).all() for tensor in memory.values())
        for key, tensor in before.items():
            assert torch.equal(tensor, copies[key])
    assert bool(memory) == (name in REMEMBERING)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_goes_on_from_saved_memory_to_the_byte(name: str) -> None:
    rule = rule_called(name)
    memory: dict[str, Tensor] = {}
    stored = save({})
    for server_round in range(ROUNDS):
        restored = load(stored)
        step, figures = a_round(rule, server_round, memory)
        again, figures_again = a_round(rule, server_round, restored)
        assert torch.equal(step, again)
        assert figures == figures_again
        stored = save(restored)
        assert stored == save(memory)


@pytest.mark.parametrize("name", sorted(REMEMBERING))
def test_memory_matters(name: str) -> None:
    rule = rule_called(name)
    memory: dict[str, Tensor] = {}
    for server_round in range(ROUNDS):
        step, _ = a_round(rule, server_round, memory)
    forgetful, _ = a_round(rule, ROUNDS - 1, {})
    assert not torch.equal(step, forgetful)


@pytest.mark.parametrize("name", sorted(REMEMBERING))
def test_a_memory_of_another_model_is_refused(name: str) -> None:
    memory: dict[str, Tensor] = {}
    a_round(rule_called(name), 0, memory)
    for key, tensor in memory.items():
        memory[key] = tensor[:-1].clone()
    with pytest.raises(ValueError, match=rf"^{name} remembers a .* of shape \[399\].*: these updates have d = 400"):
        a_round(rule_called(name), 0, memory)
