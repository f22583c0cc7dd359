"""Federated averaging with any aggregation rule in the place of the mean.

Paper: McMahan, Moore, Ramage, Hampson, Aguera y Arcas, "Communication-Efficient Learning of Deep Networks from
Decentralized Data", AISTATS 2017, Algorithm 1; the rule acts on the updates w_client - w_global of the parameters. What
a model measures and does not learn (the running statistics of batch norm) is averaged one way, whatever the rule.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from logging import INFO

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from torch import Tensor

from thornbed.defenses.aggregation.fedavg import fedavg
from thornbed.defenses.aggregation.median import median
from thornbed.defenses.reporting import listening
from thornbed.defenses.server import Rule, Server, aggregate
from thornbed.protocol.messages import TRAIN_LOSS, read_train_reply, train_message
from thornbed.protocol.randomness import generator
from thornbed.protocol.vector import Layout
from thornbed.strategies._cohort import AnyNodes, Cohort
from thornbed.strategies._rounds import (
    RoundAccount,
    RunStopped,
    SentRound,
    ServerTested,
    mean_finite,
    of_attackers,
    of_clients,
)

RootTraining = Callable[[ArrayRecord, int, int], Tensor]
"""What a server's own data make of a model: `(arrays, server_round, num_samples) -> update (d,)` of the parameters."""


class FedAvg(ServerTested):
    """Horizontal learning: send the model, check the replies one by one, apply the rule, take the step.

    Parameters
    ----------
    cohort : who takes part in a round; by default every connected node (Flower apps of your own).
    min_replies : the run stops with `RunStopped` where fewer replies of a round are usable.
    rule : any rule of `defenses.aggregation`, `(updates (n, d), weights (n,)) -> (d,)`; by default the weighted mean.
        One that asks for a `defenses.server.Server` gets it, with what it kept from the rounds before.
    seed : the rule's randomness follows from it and the round.
    root_training : trains a model on trusted data of the server's own, for rules that ask for it.
    statistics : names of the model's floating arrays that are no parameters; None: those whose last name is
        `running_mean` or `running_var`, as torch calls them.

    A rule sees parameters alone. Of the statistics the new model has the coordinate-wise median over the replies that
    are not dropped, whatever the rule and the weights; with the rule `fedavg` it has their weighted mean. Integer
    arrays (batch counters) stay as the server has them.

    A reply that is broken is dropped alone and counted with its reason. `account` tells about the latest round,
    `memory` is what the rule keeps, and `last_rounds` by client the latest round of which an answer was taken; whoever
    goes on from a checkpoint gives both back.
    Clients evaluate nothing; pass `evaluate_fn` to `start` for the server's own test.
    """

    def __init__(
        self,
        cohort: Cohort | None = None,
        min_replies: int = 1,
        *,
        rule: Rule = fedavg,
        seed: int = 0,
        root_training: RootTraining | None = None,
        statistics: Collection[str] | None = None,
    ) -> None:
        if min_replies < 1:
            raise ValueError(f"min_replies is at least 1: it is {min_replies}")
        self.cohort: Cohort = AnyNodes() if cohort is None else cohort
        self.rule = rule
        self.seed = seed
        self.root_training = root_training
        self.statistics = statistics
        self.memory: dict[str, Tensor] = {}
        self.last_rounds: dict[int, int] = {}
        self.min_replies = min_replies
        self.account: RoundAccount | None = None
        self._arrays, self._sent = ArrayRecord(), SentRound.now(0, ())
        self._layout = Layout.of(self._arrays)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the model to the members of this round; raises ValueError for statistics that the model has not."""
        self._arrays, self._layout = arrays, Layout.of(arrays, self.statistics)
        members = self.cohort.draw(server_round, grid)
        self._sent = SentRound.now(server_round, members)
        return [
            train_message(arrays, config, server_round, member.node_id, self.last_rounds.get(member.client, 0))
            for member in members
            if member.node_id is not None
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check the replies, aggregate the updates, and return the new model with what the defense did."""
        replies = list(replies)
        layout = self._layout
        current = layout.flatten(self._arrays)
        updates = torch.empty(len(replies), layout.dimension)
        statistics = torch.empty(len(replies), layout.num_statistics)
        by_client, account = self._sent.gather(
            replies,
            lambda reply, place: read_train_reply(reply, layout, current, updates[place], statistics[place]),
            at_least=self.min_replies,
        )
        accepted, clients = list(by_client.values()), list(by_client)
        self.account = account
        self.last_rounds |= dict.fromkeys(by_client, server_round)
        started = time.perf_counter()
        num_examples = torch.tensor([reply.num_examples for reply in accepted], dtype=torch.float64)
        weights = (num_examples / num_examples.sum()).to(torch.float32)
        with listening() as figures:
            try:
                step = aggregate(self.rule, updates[: len(accepted)], weights, self._server(server_round, clients))
            except ValueError as error:
                raise RunStopped(f"round {server_round} cannot be aggregated: {error}") from error
        account.defense = {**figures, **of_clients(reply.metrics for reply in accepted)}
        account.attack = of_attackers(reply.metrics for reply in accepted)
        account.replies = {client: reply.metrics for client, reply in by_client.items()}
        moved = current + step
        if broken := int((~moved.isfinite()).sum()):  # of finite replies: such a model is no end, and no checkpoint
            raise RunStopped(
                f"round {server_round} cannot be aggregated: {broken} of {len(moved)} values of the model would not be "
                "finite; the updates, or options of the rule, are too large"
            )
        new = layout.unflatten(moved, self._arrays)
        if layout.num_statistics:
            new = layout.unflatten_statistics(_middle(self.rule, statistics[: len(accepted)], weights), new)
        account.seconds_aggregation = time.perf_counter() - started
        account.train_loss = mean_finite(reply.metrics.get(TRAIN_LOSS, math.nan) for reply in accepted)
        return new, MetricRecord({"replies": len(accepted), "dropped": len(account.dropped)})

    def _server(self, server_round: int, clients: Sequence[int]) -> Server:
        def root_update(num_samples: int) -> Tensor:
            if self.root_training is None:
                raise ValueError(f"this server has no trusted data to train on: {num_samples} samples were asked for")
            return self.root_training(self._arrays, server_round, num_samples)

        return Server(
            clients=clients,
            generator=generator(self.seed, "rule", server_round),
            memory=self.memory,
            root_update=root_update,
        )

    def summary(self) -> None:
        """Log the rule and the minimum of replies."""
        log(INFO, "\t└──> rule: %s, at least %s replies a round", self.rule, self.min_replies)


def _middle(rule: Rule, statistics: Tensor, weights: Tensor) -> Tensor:
    """Return the statistics (b,) of the new model, given those of the replies (n, b): finite, as they are.

    A rule for updates would make no statistics of them: a sign, a mask or noise leaves a variance that no data have.
    """
    mean = (rule.func if isinstance(rule, partial) else rule) is fedavg
    return (fedavg if mean else median)(statistics, weights)
