"""A strategy that goes on where an earlier run stopped: Flower counts rounds from one, this adds those done before."""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from thornbed.strategies.wrappers.wrapper import Wrapper


class Resumed(Wrapper):
    """Adds `rounds_done` to every round number, so that draws and seeds go on as if nothing had happened."""

    def __init__(self, inner: Strategy, rounds_done: int) -> None:
        super().__init__(inner)
        self.rounds_done = rounds_done

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Hand on, with the round of the whole run."""
        return self.inner.configure_train(server_round + self.rounds_done, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Hand on, with the round of the whole run."""
        return self.inner.aggregate_train(server_round + self.rounds_done, replies)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Hand on, with the round of the whole run."""
        return self.inner.configure_evaluate(server_round + self.rounds_done, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Hand on, with the round of the whole run."""
        return self.inner.aggregate_evaluate(server_round + self.rounds_done, replies)
