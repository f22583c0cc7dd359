"""From what a server kept of an update to what an attack is shown of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from thornbed.attacks.inversion import Observation, gradient_of_update
from thornbed.flower_apps.settings import BadSettings, plugins
from thornbed.protocol.recordings import Facts, Recording
from thornbed.protocol.tensor_files import misfit
from thornbed.tasks.models import normalised

Kept = tuple[Path, Recording, Tensor | None]
"""A recording, where it lies, and the labels (n,) that the attack may be told; None where they are not known."""


def observations(kept: Sequence[Kept], device: torch.device | str) -> list[Observation]:
    """Return what an attack is shown of recordings, on a device; those that began with one model have it in common.

    Raises BadSettings, with the file, where one does not hold the model that it names, or contradicts itself.
    """
    networks: list[tuple[Recording, nn.Module]] = []
    observed = []
    for path, recording, labels in kept:
        network = next((known for other, known in networks if _same_model(other, recording)), None)
        if network is None:
            network = _network(path, recording).to(device)
            networks.append((recording, network))
        try:
            gradient = _gradient(recording, network)
            observed.append(observation(recording.facts, network, gradient, labels))
        except ValueError as error:
            raise BadSettings(f"{path}: {error}") from None
    return observed


def observation(facts: Facts, network: nn.Module, gradient: Mapping[str, Tensor], labels: Tensor | None) -> Observation:
    """Return what an attack is shown of an update with these facts; raises ValueError where they contradict the model.

    `network` is the model that was sent, `gradient` by the names of its parameters what the update stands for.
    """
    return Observation(
        model=network,
        gradient=gradient,
        num_samples=facts.num_samples,
        sample_shape=tuple(facts.sample_shape),
        num_classes=facts.num_classes,
        mean=facts.mean,
        std=facts.std,
        labels=labels,
        batch_norm=facts.batch_norm,
        learning_rate=facts.learning_rate,
        local_steps=facts.local_steps,
        batch_size=facts.batch_size,
        client=facts.client,
        epoch=facts.epoch,
    )


def _network(path: Path, recording: Recording) -> nn.Module:
    """Return the network of a recording, as it was sent."""
    facts = recording.facts
    try:
        with torch.random.fork_rng(devices=[]):
            made = plugins.load("model", facts.model)(tuple(facts.sample_shape), facts.num_classes)
        network: nn.Module = normalised(made, facts.mean, facts.std)
    except (ValueError, RuntimeError, MemoryError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadSettings(f"{path}: its model {facts.model} cannot be made: {reason}") from None
    if (fault := misfit(recording.sent, network.state_dict())) is not None:
        raise BadSettings(f"{path} is no recording of {facts.model}: {fault}")
    network.load_state_dict(dict(recording.sent))
    return network


def _gradient(recording: Recording, network: nn.Module) -> dict[str, Tensor]:
    names = [name for name, _ in network.named_parameters()]
    device = next(network.parameters()).device
    # The difference is taken before the cast: a float64 model may have moved by less than a float32 holds.
    wide = {name: torch.promote_types(recording.sent[name].dtype, torch.float32) for name in names}
    gradient = gradient_of_update(
        {name: recording.sent[name].to(device, wide[name]) for name in names},
        {name: recording.received[name].to(device, wide[name]) for name in names},
        learning_rate=recording.facts.learning_rate or 1.0,
        local_steps=recording.facts.local_steps,
    )
    return {name: tensor.to(torch.float32) for name, tensor in gradient.items()}


def _same_model(one: Recording, other: Recording) -> bool:
    """Tell whether two recordings began with the same model; the attack then holds it once."""
    kinds = [(each.facts.model, each.facts.sample_shape, each.facts.mean, each.facts.std) for each in (one, other)]
    return (
        kinds[0] == kinds[1]
        and one.sent.keys() == other.sent.keys()
        and all(torch.equal(tensor, other.sent[name]) for name, tensor in one.sent.items())
    )
