"""The agents of collaborative inference: their features, their extractors, and who of them lies.

Extractors are trained jointly with a fusion head, which is SplitNN, on clean training rows before the first round:
training is protected (Liu, Xie, Koyejo, Li, "CoPur", NeurIPS 2022, Section 2.2). This happens once, in one process, and
the others read what came out. Agents of a deployment have theirs from a run of SplitNN, see `inference_replies`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from thornbed.clients.channel import found_once
from thornbed.clients.inference import Coalition, Part
from thornbed.clients.local_training import batches
from thornbed.flower_apps.run import build
from thornbed.flower_apps.run.feature_split import blocks
from thornbed.flower_apps.run.stored_extractors import EXTRACTOR, earlier
from thornbed.flower_apps.run.threat import needs
from thornbed.flower_apps.schemes.inference.centre import strategy
from thornbed.flower_apps.settings import NONE, BadSettings, Resolved, Settings, plugins
from thornbed.flower_apps.settings.plugins import Spec
from thornbed.protocol.randomness import derived_seed, generator
from thornbed.protocol.threads import one_thread
from thornbed.tasks import Samples, Split
from thornbed.tasks.blocks import block_shapes
from thornbed.tasks.bottoms import bottom
from thornbed.tasks.split.parties import HonestParty, train_parties
from thornbed.tasks.split.party_work import PartyWork
from thornbed.tasks.split.records import Records
from thornbed.tasks.split.top_model import two_layers
from thornbed.tasks.split.top_work import TopWork

WHO = "agents"  # the option of an attack that says which of the malicious agents carry it out
DECIDING = (
    "task",
    "data_dir",
    "model",
    "partition",
    "num_clients",
    "optimizer",
    "learning_rate",
    "batch_size",
    "local_epochs",
    "seed",
    "start_from",
)


def rows(settings: Resolved) -> tuple[Tensor, Tensor, Split]:
    """Return the training rows (N,), those that are queried (n,), and of which samples these are."""
    task, share = build.load_task(settings.task, settings.data_dir), strategy(settings).validation
    held_out = round(share * len(task.train))
    train = torch.arange(len(task.train) - held_out)
    if not share:
        return train, torch.arange(len(task.test)), "test"
    return train, torch.arange(len(train), len(task.train)), "train"


def extractor(settings: Resolved, agent: int) -> nn.Module:
    """Build an agent's network with first weights that depend on the seed and its number alone."""
    task, block = build.load_task(settings.task, settings.data_dir), blocks(settings)[agent]
    make, shape = plugins.load("bottom", settings.model), block_shapes([block], task.sample_shape)[0]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derived_seed(settings.seed, "bottom", agent))
        size, whole = strategy(settings).embedding_size, task.sample_shape
        return bottom(make, block, shape, size, mean=task.mean, std=task.std, sample_shape=whole)


def extractors(settings: Resolved) -> list[nn.Module]:
    """Return the agents' trained networks: those of --start-from, or trained once by whichever process comes first."""
    found = _trained(_Training.of(settings))
    return list(found)


class _Training(NamedTuple):
    """What extractors depend on: runs that differ in nothing else have the same ones. And where they are shared."""

    settings: Resolved
    folder: Path | None

    @classmethod
    def of(cls, settings: Resolved) -> _Training:
        made = strategy(settings)
        told = {name: getattr(made, name) for name in ("embedding_size", "hidden_units", "validation")}
        alike = {**Settings().model_dump(), **{name: getattr(settings, name) for name in DECIDING}}
        alike |= {"strategy": str(Spec(plugins.parse(settings.strategy).name, told)), "num_malicious": 0}
        alike |= {"clients_per_round": settings.num_clients, "min_replies": 1, "rounds": 1}
        # Inline this process alone needs them, and has them.
        folder = None if settings.engine == "inline" else Path(settings.output).expanduser()
        return cls(Resolved.model_construct(**alike), folder)


@lru_cache(maxsize=16)  # a sweep comes back to each seed for every defense
def _trained(training: _Training) -> tuple[nn.Module, ...]:
    settings, folder = training
    networks = [extractor(settings, agent) for agent in range(settings.num_clients)]
    if settings.start_from:
        train, _, split = rows(settings)
        states = earlier(settings, states_of(networks), None if split == "test" else len(train))
    elif folder is None:
        states = _train(settings, networks)
    else:
        found = found_once(
            folder / "extractors.npz",
            lambda: {name: tensor.numpy() for name, tensor in _train(settings, networks).items()},
        )
        states = {name: torch.from_numpy(array) for name, array in found.items()}
    for agent, network in enumerate(networks):
        start = f"{EXTRACTOR}{agent}."
        network.load_state_dict({key.removeprefix(start): states[key] for key in states if key.startswith(start)})
        network.eval().requires_grad_(False)
    return tuple(networks)


def states_of(networks: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Return the tensors of all agents' networks under one name each."""
    return {
        f"{EXTRACTOR}{agent}.{name}": tensor
        for agent, network in enumerate(networks)
        for name, tensor in network.state_dict().items()
    }


def _train(settings: Resolved, networks: Sequence[nn.Module]) -> dict[str, Tensor]:
    task, made = build.load_task(settings.task, settings.data_dir), strategy(settings)
    train, _, _ = rows(settings)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derived_seed(settings.seed, "top"))
        head = two_layers(settings.num_clients, made.embedding_size, task.num_classes, hidden=made.hidden_units)
    optimizer = build.optimizer(settings)
    parties = [
        HonestParty(Records(train, part(settings, "train", agent)[train]), PartyWork(network, optimizer))
        for agent, network in enumerate(networks)
    ]
    steps = batches(
        len(train),
        batch_size=settings.batch_size,
        epochs=settings.local_epochs,
        generator=generator(settings.seed, "extractors"),
    )
    with one_thread():
        train_parties(parties, TopWork(head, optimizer), task.train.y, steps, generator(settings.seed, "top"))
    return states_of(networks)


def part(settings: Resolved, split: Split, agent: int) -> Tensor:
    """Return an agent's columns (N, k) of a task's samples, decoded."""
    task = build.load_task(settings.task, settings.data_dir)
    samples = task.train if split == "train" else task.test
    columns = samples.x.flatten(1)[:, torch.tensor(blocks(settings)[agent])]
    return Samples(columns, samples.y).decoded().x


def embedded(settings: Resolved, split: Split, wanted: Tensor, agent: int) -> Tensor:
    """Return an agent's honest embeddings (n, c) of the rows wanted (n,)."""
    return embeddings_of(extractors(settings)[agent], part(settings, split, agent)[wanted])


def embeddings_of(network: nn.Module, x: Tensor) -> Tensor:
    """Return what an extractor makes of columns (n, k), (n, c), in batches."""
    with one_thread(), torch.no_grad():
        return torch.cat([network(rows) for rows in x.split(4096)])


def coalition(settings: Resolved) -> Coalition | None:
    """Return the agents that lie and what each does; None where nobody attacks.

    Raises BadSettings as `assigned` does, and where its agents are not all of the malicious ones.
    """
    everybody = tuple(sorted(settings.malicious))
    made = assigned(settings.attack, everybody) if everybody else None
    if made is not None and made.agents != everybody:
        raise BadSettings(
            f"--attack is carried out by agents {_listed(made.agents)}, and the malicious ones are "
            f"{_listed(everybody)}; name the same with --malicious-ids"
        )
    return made


def assigned(text: str, everybody: tuple[int, ...]) -> Coalition | None:
    """Return who carries out which part of an attack, `everybody` where it has one part and does not say; None of none.

    A part of an attack that is a sum says in its option `agents` which agents carry it out:
    "missing(agents=(6,)) + targeted_pgd(agents=(9,))". Raises BadSettings where it does not, and ValueError where an
    agent is in two parts.
    """
    specs = [] if text == NONE else plugins.parse_sum(text)
    parts = []
    for spec in specs:
        who: Any = spec.options.get(WHO, everybody if len(specs) == 1 else None)
        if not isinstance(who, tuple) or not who or not all(type(agent) is int for agent in who):
            several = f"{specs[0].name}(agents=(6,)) + {specs[-1].name}(agents=(9,))"
            wanted = (
                f"of several parts says which agents carry out each, as in {several}"
                if len(specs) > 1
                else f"takes numbers of agents, as in {spec.name}(agents=(6, 9))"
            )
            raise BadSettings(f"--attack {wanted}; {spec.name} says {who!r}")
        rest = Spec(spec.name, {name: value for name, value in spec.options.items() if name != WHO})
        parts.append(Part(plugins.load("attack", rest), who, needs(spec.name)))
    return Coalition(parts) if parts else None


def _listed(agents: Sequence[int]) -> str:
    return ",".join(map(str, agents))
