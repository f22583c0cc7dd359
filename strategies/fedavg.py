"""Federated averaging with any aggregation rule in the place of the mean.

Paper: McMahan, Moore, Ramage, Hampson, Aguera y Arcas, "Communication-Efficient Learning of Deep Networks from
Decentralized Data", AISTATS 2017, Algorithm 1; the rule acts on the updates w_client - w_global of the parameters. What
a model measures and does not learn (the running statistics of batch norm) is averaged one way, whatever the rule.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from logging import INFO, WARNING
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from thornbed.defenses.aggregation.fedavg import fedavg
from thornbed.defenses.aggregation.median import median
from thornbed.defenses.reporting import listening
from thornbed.defenses.server import Rule, Server, aggregate
from thornbed.protocol.messages import TRAIN_LOSS, TrainReply, evaluate_message, read_train_reply, train_message
from thornbed.protocol.randomness import generator
from thornbed.protocol.reported import read_evaluate_reply
from thornbed.protocol.vector import Layout
from thornbed.strategies._cohort import Cohort, Member
from thornbed.strategies._flowers_options import FlowersOptions
from thornbed.strategies._rounds import (
    RoundAccount,
    RunStopped,
    SentRound,
    checked,
    mean_finite,
    of_attackers,
    of_clients,
)

RootTraining = Callable[[ArrayRecord, int, int], Tensor]
"""What a server's own data make of a model: `(arrays, server_round, num_samples) -> update (d,)` of the parameters."""


class FedAvg(Strategy):
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
    flowers : the options of Flower's own FedAvg, with Flower's meaning and by name: `fraction_train`,
        `min_train_nodes` and `min_available_nodes` (who trains, where no cohort is given), `fraction_evaluate` and
        `min_evaluate_nodes` (who evaluates; 0.0 by default, where Flower has 1.0), `weighted_by_key`,
        `arrayrecord_key`, `configrecord_key` (names in records), `train_metrics_aggr_fn` and
        `evaluate_metrics_aggr_fn` (by default the mean, weighted by what clients claim).

    A rule sees parameters alone. Of the statistics the new model has the coordinate-wise median over the replies that
    are not dropped, whatever the rule and the weights; with the rule `fedavg` it has their weighted mean. Integer
    arrays (batch counters) stay as the server has them. A rule is given float64 where a parameter is float64, and
    float32 otherwise; a new model that does not fit into the dtypes of its arrays is refused with RunStopped.

    A reply that is broken is dropped alone and counted with its reason. `account` tells about the latest round,
    `memory` is what the rule keeps, and `last_rounds` by client the latest round of which an answer was taken; whoever
    goes on from a checkpoint gives both back.
    What clients report is returned with the numbers of `replies` and of those `dropped`, as far as it can be averaged:
    a reply that lacks what most report, or has a number that is not finite, is left out of it alone, and its update
    counts. Clients evaluate where `fraction_evaluate` says so, drawn among all connected nodes; pass `evaluate_fn` to
    `start` for the server's own test.

    Raises TypeError for options that there are not, ValueError for values that they cannot have, and for a cohort
    together with an option that would draw another one.
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
        **flowers: Any,
    ) -> None:
        if min_replies < 1:
            raise ValueError(f"min_replies is at least 1: it is {min_replies}")
        self.options = FlowersOptions.of(type(self), flowers, cohort)
        self.cohort: Cohort = self.options.trainers(seed) if cohort is None else cohort
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
        self._evaluators: Sequence[Member] = ()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the model to the members of this round.

        Raises ValueError for statistics that the model has not, and for arrays of a dtype that nothing here aggregates.
        """
        self._arrays, self._layout = arrays, Layout.of(arrays, self.statistics)
        if (fault := self._layout.unlearnable()) is not None:
            raise ValueError(fault)
        if not self.options.fraction_train:
            return []
        members = self.cohort.draw(server_round, grid)
        self._sent = SentRound.now(server_round, members)
        return [
            train_message(
                arrays, config, server_round, member.node_id, self.last_rounds.get(member.client, 0), self._keys
            )
            for member in members
            if member.node_id is not None
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check the replies, aggregate the updates, and return the new model with what the defense did."""
        if not self.options.fraction_train:
            return None, None
        replies = list(replies)
        layout = self._layout
        current = layout.flatten(self._arrays)
        updates = torch.empty(len(replies), layout.dimension, dtype=layout.dtype)
        statistics = torch.empty(len(replies), layout.num_statistics, dtype=layout.statistics_dtype)
        weighted_by = self.options.weighted_by_key

        def read(reply: Message, place: int) -> TrainReply:
            return read_train_reply(reply, layout, current, updates[place], statistics[place], weighted_by)

        by_client, account = self._sent.gather(replies, read, at_least=self.min_replies)
        accepted, clients = list(by_client.values()), list(by_client)
        self.account = account
        self.last_rounds |= dict.fromkeys(by_client, server_round)
        started = time.perf_counter()
        num_examples = torch.tensor([reply.num_examples for reply in accepted], dtype=torch.float64)
        weights = (num_examples / num_examples.sum()).to(layout.dtype)
        with listening() as figures:
            try:
                step = aggregate(self.rule, updates[: len(accepted)], weights, self._server(server_round, clients))
            except ValueError as error:
                raise RunStopped(f"round {server_round} cannot be aggregated: {error}") from error
        account.defense = {**figures, **of_clients(reply.metrics for reply in accepted)}
        account.attack = of_attackers(reply.metrics for reply in accepted)
        account.replies = {client: reply.metrics for client, reply in by_client.items()}
        new = layout.unflatten(current + step, self._arrays)
        if layout.num_statistics:
            new = layout.unflatten_statistics(_middle(self.rule, statistics[: len(accepted)], weights), new)
        if broken := layout.not_finite(new):  # of finite replies: such a model is no end, and no checkpoint
            name, number = broken
            raise RunStopped(
                f"round {server_round} cannot be aggregated: {number} of {math.prod(new[name].shape)} values of {name} "
                f"would not be finite in {new[name].dtype}; the updates, or options of the rule, are too large"
            )
        account.seconds_aggregation = time.perf_counter() - started
        account.train_loss = mean_finite(reply.metrics.get(TRAIN_LOSS, math.nan) for reply in accepted)
        return new, self._reported(by_client, server_round, account)

    def _reported(self, by_client: Mapping[int, TrainReply], server_round: int, account: RoundAccount) -> MetricRecord:
        contents = {client: reply.content for client, reply in by_client.items()}
        make = self.options.train_metrics_aggr_fn
        metrics = self.options.averaged(contents, server_round, make)
        if make is None:
            metrics["replies"], metrics["dropped"] = len(by_client), len(account.dropped)
        return metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the model to those who evaluate, if anybody is to."""
        self._evaluators = ()
        if not self.options.fraction_evaluate:
            return []
        self._evaluators = self.options.evaluators(self.seed).draw(server_round, grid)
        return [
            evaluate_message(arrays, config, server_round, member.node_id, self._keys)
            for member in self._evaluators
            if member.node_id is not None
        ]

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Check the replies, and return what is made of their metrics; None where there is nothing."""
        key, make = self.options.weighted_by_key, self.options.evaluate_metrics_aggr_fn
        accepted, refused = checked(self._evaluators, replies, lambda reply, place: read_evaluate_reply(reply, key))
        for client, reason in refused.items():
            log(WARNING, "Client %s is left out of the evaluation of round %s: %s", client, server_round, reason)
        return self.options.averaged(accepted, server_round, make) or None

    @property
    def _keys(self) -> tuple[str, str]:
        return self.options.arrayrecord_key, self.options.configrecord_key

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
