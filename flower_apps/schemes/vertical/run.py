"""A run of vertical learning, built once: who holds which features, the networks over them, and who attacks how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, cast

import networkx as nx
import torch
from torch import Tensor

from thornbed.attacks.vertical import VerticalAttack
from thornbed.attacks.vertical.coalition import known_rows
from thornbed.clients.channel import Channel
from thornbed.clients.collusion import Collusion
from thornbed.clients.vfl import BackdoorClient, EmbeddingClient
from thornbed.defenses.vertical import InTurn, VerticalDefense
from thornbed.flower_apps.run.client import Client, accomplices, attack_text, channel_of, is_malicious, state_folder
from thornbed.flower_apps.run.feature_split import FeatureSplitRun
from thornbed.flower_apps.settings import BadSettings, Resolved, plugins
from thornbed.flower_apps.settings.plugins import Spec
from thornbed.protocol.client_state import ClientState, LivingMemory
from thornbed.protocol.randomness import generator
from thornbed.strategies.split_nn import Course, SplitNN
from thornbed.tasks.blocks import Block
from thornbed.tasks.split.party_work import PartyWork
from thornbed.tasks.split.records import Records

ATTACKS = "attacks/vertical"


class VerticalRun(FeatureSplitRun):
    """What runs have in which clients hold features of the same samples, and the server the labels."""

    def __init__(self, settings: Resolved) -> None:
        super().__init__(settings)
        self._records: dict[int, tuple[Records, Records]] = {}
        self._collusions: dict[Any, Collusion] = {}

    @property
    def embedding_size(self) -> int:
        """Numbers that a client sends for a sample."""
        return self.strategy.embedding_size

    @cached_property
    def strategy(self) -> SplitNN:
        """The strategy without samples: what it says of embeddings and local steps; ValueError for bad options."""
        return self._strategy(None)

    def new_strategy(self) -> SplitNN:
        """Build the strategy of one federation, with the labels."""
        return self._strategy(self.course)

    @cached_property
    def course(self) -> Course:
        """What the server holds of the task, and how long a round is."""
        settings, task = self.settings, self.task
        return Course(
            train=Records(torch.arange(len(task.train)), task.train.y),
            test=Records(torch.arange(len(task.test)), task.test.y),
            num_parties=settings.num_clients,
            num_classes=task.num_classes,
            batch_size=settings.batch_size,
            passes=settings.local_epochs,
            timeout=settings.reply_timeout,
            target=None if self.attack is None else self.attack.target,
        )

    @cached_property
    def guard(self) -> VerticalDefense | None:
        """The server's defenses, one after the other; None without any."""
        parts = tuple(plugins.load("defense", spec) for spec in self.defenses)
        return InTurn(parts) if len(parts) > 1 else (parts[0] if parts else None)

    @cached_property
    def attack(self) -> VerticalAttack | None:
        """The attack of the run; None without one."""
        return self._attack(self.attacks)

    def attack_on(self, node_config: Mapping[str, Any]) -> VerticalAttack | None:
        """Return the attack of a malicious client: the run's, or in deployment one that its node names."""
        text = attack_text(self.settings, node_config)
        return self.attack if text == self.settings.attack else self._attack(plugins.parse_sum(text))

    def known(self, attack: VerticalAttack) -> Tensor:
        """Return the training rows (k,) whose labels adversaries know; raises ValueError where there are too few."""
        source = generator(self.settings.seed, "known")
        return known_rows(self.task.train.y, attack.target, attack.num_known, attack.known_target_share, source)

    def graph(self, attack: VerticalAttack, adversaries: tuple[int, ...]) -> nx.Graph:
        """Return how adversaries are connected; raises ValueError where they are not."""
        return attack.connected(adversaries, generator(self.settings.seed, "graph"))

    def held(self, clients: Sequence[int]) -> dict[int, Block]:
        """Return which columns each of some clients holds."""
        return {client: self.blocks[client] for client in clients}

    def records(self, client: int) -> tuple[Records, Records]:
        """Return a client's part of the training and test samples, decoded; ids are their numbers in the task."""
        if client not in self._records:
            train, test = self.columns("train", client), self.columns("test", client)
            self._records[client] = Records(torch.arange(len(train)), train), Records(torch.arange(len(test)), test)
        return self._records[client]

    def embedding_client(self, client: Client) -> EmbeddingClient:
        """Return a client with a new network; raises ValueError where it is malicious and cannot attack."""
        train, test = self.records(client.number)
        work = PartyWork(self.bottom_model(client.number), self.optimizer, local_steps=self.strategy.local_steps)
        if not is_malicious(self.settings, client.number, client.node_config):
            return EmbeddingClient(train, test, work)
        return BackdoorClient(train, test, work, self.collusion(client))

    def conspiracy(self, client: Client) -> tuple[VerticalAttack, nx.Graph, Channel]:
        """Return a malicious client's attack, how its group is connected, and where they meet; needs no data.

        Raises BadSettings where there is no attack, no group, or no channel, and ValueError where it is no graph.
        """
        attack = self.attack_on(client.node_config)
        assert attack is not None  # a malicious client has one
        adversaries = accomplices(self.settings, client.number, client.node_config)
        channel = channel_of(self.settings, client.node_config, client.run_id)
        return attack, self.graph(attack, adversaries), channel

    def collusion(self, client: Client) -> Collusion:
        """Return a malicious client's side of what adversaries do together; raises ValueError where it cannot."""
        key = (client.number, client.run_id, *sorted(client.node_config.items()))
        if key not in self._collusions:
            self._collusions[key] = self._collusion(client)
        return self._collusions[key]

    def kept(self, client: int) -> dict[str, Tensor]:
        """Return what a client kept after the last round, by name; nothing where that is not on this machine."""
        folder = state_folder(self.settings, {})
        return ClientState(client, LivingMemory(), folder).saved(self.settings.rounds) or {}

    def _strategy(self, course: Course | None) -> SplitNN:
        settings = self.settings
        return cast(SplitNN, self._make(self.cohort(), settings.min_replies, settings.seed, course, self.guard))

    @cached_property
    def _make(self) -> Any:
        return plugins.load("strategy", self.settings.strategy)

    def _attack(self, specs: Sequence[Spec]) -> VerticalAttack | None:
        if not specs:
            return None
        if len(specs) > 1:
            raise BadSettings(f"--attack takes one attack of vertical learning, not {len(specs)} joined by +")
        # The run's own attack was looked at before; a node may name any.
        if plugins.available("attack").get(specs[0].name, ATTACKS) != ATTACKS:
            raise BadSettings(f"attack {specs[0].name} in --node-config is none of vertical learning")
        return cast(VerticalAttack, plugins.load("attack", specs[0], self.base))

    def _collusion(self, client: Client) -> Collusion:
        attack, graph, channel = self.conspiracy(client)
        task, rows = self.task, self.known(attack)
        held = self.held(sorted(graph))
        attack.check(held, task.sample_shape, task.num_classes)
        return Collusion(
            attack=attack,
            graph=graph,
            blocks=held,
            sample_shape=task.sample_shape,
            num_classes=task.num_classes,
            known=rows,
            labels=task.train.y[rows],
            client=client.number,
            channel=channel,
            seed=self.settings.seed,
        )
