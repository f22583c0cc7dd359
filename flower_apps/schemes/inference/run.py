"""A run of collaborative inference, built once: what is asked, the extractors, the fusion centre, and who lies.

Extractors are trained jointly with a fusion head, which is SplitNN, on clean training rows before the first round:
training is protected (Liu, Xie, Koyejo, Li, "CoPur", NeurIPS 2022, Section 2.2). This happens once, in one process, and
the others read what came out. Clients of a deployment have theirs from a run of SplitNN, see `handlers`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from thornbed.attacks import Knowledge
from thornbed.clients.inference import Coalition, Part
from thornbed.clients.local_training import batches
from thornbed.defenses.fusion_head import HeadTraining
from thornbed.defenses.inference import InferenceDefense
from thornbed.defenses.inference.plain import Plain
from thornbed.flower_apps.run.feature_split import FeatureSplitRun
from thornbed.flower_apps.run.stored_extractors import EXTRACTOR, earlier
from thornbed.flower_apps.run.threat import needs
from thornbed.flower_apps.settings import BadSettings, Resolved, Settings, plugins
from thornbed.flower_apps.settings.plugins import Spec
from thornbed.protocol.randomness import derived_seed, generator
from thornbed.protocol.tensor_files import found_once
from thornbed.protocol.threads import one_thread
from thornbed.strategies._fusion_centre import FusionCentre
from thornbed.strategies.collaborative_inference import CollaborativeInference, Queries
from thornbed.tasks import Split
from thornbed.tasks.split.parties import HonestParty, train_parties
from thornbed.tasks.split.party_work import PartyWork
from thornbed.tasks.split.records import Records
from thornbed.tasks.split.top_model import two_layers
from thornbed.tasks.split.top_work import TopWork

PURIFICATIONS, DECISIONS = "defenses/purification", "defenses/inference"
UNSECURED = Spec("unsecured", {})
EXTRACTORS = "extractors.safetensors"  # in a run's folder, where other processes than that which trains them need them
WHO = "agents"  # the option of an attack that says which of the malicious clients carry it out
# What trained extractors depend on, beside three options of the strategy.
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
)


class InferenceRun(FeatureSplitRun):
    """What runs have in which clients send embeddings of queries to a fusion centre."""

    @property
    def embedding_size(self) -> int:
        """Numbers that a client sends for a sample."""
        return self.strategy.embedding_size

    @cached_property
    def strategy(self) -> CollaborativeInference:
        """The strategy for what its options say: without a fusion centre, and without data."""
        return self.new_strategy()

    def new_strategy(self, centre: FusionCentre | None = None, asked: Queries | None = None) -> CollaborativeInference:
        """Build the strategy; raises ValueError for options out of range."""
        return self._make_strategy(self.cohort(), self.settings.min_replies, self.settings.seed, centre, asked)

    @cached_property
    def _make_strategy(self) -> Callable[..., CollaborativeInference]:
        make: Callable[..., CollaborativeInference] = plugins.load("strategy", self.settings.strategy)
        return make

    @cached_property
    def asked(self) -> Queries:
        """The rows that clients embed: for training, and queries, of the test samples or held out for validation."""
        count, share = len(self.task.train), self.strategy.validation
        train = torch.arange(count - round(share * count))
        public = self.coalition is not None and Knowledge.FUSION_MODEL in self.coalition.needs
        if share:
            return Queries(train=train, queries=torch.arange(len(train), count), split="train", public=public)
        return Queries(train=train, queries=torch.arange(len(self.task.test)), split="test", public=public)

    def labels(self, split: str, rows: Tensor) -> Tensor:
        """Return the true labels (n,) of rows (n,) of a split."""
        return (self.task.train if split == "train" else self.task.test).y[rows]

    @cached_property
    def centre(self) -> FusionCentre:
        """How embeddings are purified and classified, with the labels of the training rows.

        Raises BadSettings for several purifications, or several ways to decide.
        """
        made = self.strategy
        spec, decision = self._only(PURIFICATIONS, "purification") or UNSECURED, self._only(DECISIONS, "way to decide")
        defense: InferenceDefense = Plain() if decision is None else plugins.load("defense", decision)
        corrupted = torch.zeros(self.settings.num_clients, dtype=torch.bool)
        corrupted[list(self.settings.malicious)] = True
        return FusionCentre(
            labels=self.labels("train", self.asked.train),
            num_classes=self.task.num_classes,
            embedding_size=made.embedding_size,
            corrupted=corrupted,
            purify=plugins.load("defense", spec),
            on_manifold=bool(importlib.import_module(plugins.find("defense", spec.name).__module__).ON_MANIFOLD),
            defense=defense,
            training=HeadTraining(hidden=(made.hidden_units,), epochs=made.head_epochs),
            bottleneck=made.bottleneck,
            hidden=made.hidden,
            drop=made.drop,
            epochs=made.epochs,
        )

    def _only(self, folder: str, words: str) -> Spec | None:
        found = self.specs_in(folder)
        if len(found) > 1:
            raise BadSettings(f"--defense takes one {words}, not {len(found)}: {' + '.join(map(str, found))}")
        return found[0] if found else None

    @cached_property
    def coalition(self) -> Coalition | None:
        """The clients that lie and what each does; None where nobody attacks, and of a deployment, where each is alone.

        Raises BadSettings as `coalition_of` does, and where its clients are not all of the malicious ones.
        """
        everybody = tuple(sorted(self.settings.malicious))
        made = coalition_of(self.attacks, everybody) if everybody else None
        if made is not None and made.agents != everybody:
            raise BadSettings(
                f"--attack is carried out by clients {_listed(made.agents)}, and the malicious ones are "
                f"{_listed(everybody)}; name the same with --malicious-ids"
            )
        return made

    @cached_property
    def extractors(self) -> tuple[nn.Module, ...]:
        """All clients' networks, of --start-from or trained; not of a deployment, where each client has its own.

        Raises BadSettings as `earlier_extractors` does.
        """
        networks = self.new_extractors()
        if self.settings.start_from:
            states = self.earlier_extractors(networks)
        elif self.settings.engine == "inline" or not self.settings.output:
            states = _trained(self._deciding())
        else:
            states = found_once(self.output / EXTRACTORS, lambda: _trained(self._deciding()))
        for client, network in enumerate(networks):
            start = f"{EXTRACTOR}{client}."
            network.load_state_dict({key.removeprefix(start): states[key] for key in states if key.startswith(start)})
            network.eval().requires_grad_(False)
        return networks

    def new_extractors(self) -> tuple[nn.Module, ...]:
        """Build all clients' networks with their first weights."""
        return tuple(self.bottom_model(client) for client in range(self.settings.num_clients))

    def earlier_extractors(self, networks: Sequence[nn.Module]) -> dict[str, Tensor]:
        """Return the tensors of the extractors of --start-from.

        Raises BadSettings where that file has none that fit the networks, or such as have seen what is queried.
        """
        held_out_after = None if self.asked.split == "test" else len(self.asked.train)
        return earlier(self.settings, states_of(networks), held_out_after)

    def train_extractors(self) -> dict[str, Tensor]:
        """Train all clients' networks jointly with a head and return their tensors."""
        settings, made, rows = self.settings, self.strategy, self.asked.train
        networks = self.new_extractors()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derived_seed(settings.seed, "top"))
            classes = self.task.num_classes
            head = two_layers(settings.num_clients, made.embedding_size, classes, hidden=made.hidden_units)
        parties = [
            HonestParty(Records(rows, self.columns("train", client)[rows]), PartyWork(network, self.optimizer))
            for client, network in enumerate(networks)
        ]
        source = generator(settings.seed, "extractors")
        steps = batches(len(rows), batch_size=settings.batch_size, epochs=settings.local_epochs, generator=source)
        with one_thread():
            top = TopWork(head, self.optimizer)
            train_parties(parties, top, self.task.train.y, steps, generator(settings.seed, "top"))
        return states_of(networks)

    def _deciding(self) -> Resolved:
        """Return what decides what extractors are trained to, and nothing else: runs that differ otherwise share it."""
        told = {name: getattr(self.strategy, name) for name in ("embedding_size", "hidden_units", "validation")}
        alike = {**Settings().model_dump(), **{name: getattr(self.settings, name) for name in DECIDING}}
        alike |= {"strategy": str(Spec(plugins.parse(self.settings.strategy).name, told)), "num_malicious": 0}
        alike |= {"clients_per_round": self.settings.num_clients, "min_replies": 1, "rounds": 1}
        return Resolved.model_construct(**alike)

    def embedded(self, split: Split, rows: Tensor, client: int) -> Tensor:
        """Return a client's honest embeddings (n, c) of rows (n,)."""
        return embeddings_of(self.extractors[client], self.columns(split, client)[rows])


@lru_cache(maxsize=16)  # a sweep comes back to each seed for every defense
def _trained(deciding: Resolved) -> dict[str, Tensor]:
    return InferenceRun(deciding).train_extractors()


def states_of(networks: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Return the tensors of all clients' networks under one name each."""
    return {
        f"{EXTRACTOR}{client}.{name}": tensor
        for client, network in enumerate(networks)
        for name, tensor in network.state_dict().items()
    }


def embeddings_of(network: nn.Module, x: Tensor) -> Tensor:
    """Return what an extractor makes of columns (n, k), (n, c), in batches."""
    with one_thread(), torch.no_grad():
        return torch.cat([network(rows) for rows in x.split(4096)])


def coalition_of(attacks: Sequence[Spec], everybody: tuple[int, ...]) -> Coalition | None:
    """Return who carries out which part of an attack, `everybody` where it has one part and does not say; None of none.

    A part of an attack that is a sum says in its option `agents` which clients carry it out:
    "missing(agents=(6,)) + targeted_pgd(agents=(9,))". Raises BadSettings where it does not, and ValueError where a
    client is in two parts.
    """
    parts = []
    for spec in attacks:
        who: Any = spec.options.get(WHO, everybody if len(attacks) == 1 else None)
        if not isinstance(who, tuple) or not who or not all(type(client) is int for client in who):
            several = f"{attacks[0].name}(agents=(6,)) + {attacks[-1].name}(agents=(9,))"
            wanted = (
                f"of several parts says which clients carry out each, as in {several}"
                if len(attacks) > 1
                else f"takes numbers of clients, as in {spec.name}(agents=(6, 9))"
            )
            raise BadSettings(f"--attack {wanted}; {spec.name} says {who!r}")
        rest = Spec(spec.name, {name: value for name, value in spec.options.items() if name != WHO})
        parts.append(Part(plugins.load("attack", rest), who, needs(spec.name)))
    return Coalition(parts) if parts else None


def _listed(clients: Sequence[int]) -> str:
    return ",".join(map(str, clients))
