"""What has happened in a round of vertical learning so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from logging import WARNING
from typing import TypeVar

import torch
from flwr.app import Message
from flwr.common.logger import log
from torch import Tensor

from thornbed.strategies._cohort import Member
from thornbed.strategies._rounds import RoundAccount, checked
from thornbed.tasks.split.top_work import TopStep

Reply = TypeVar("Reply")


class SplitRound:
    """A round: its members, what is asked now, the gradients `back` that are to be sent, and the account so far.

    `unaligned` are the members, each with the reason, that have not said which samples they hold: nobody asks them for
    more in this round, and every step of it counts as one that they missed.
    """

    def __init__(self, server_round: int, members: Iterable[Member]) -> None:
        self.server_round, self.members = server_round, tuple(members)
        self.rows = self.attacked = self.probe = torch.zeros(0, dtype=torch.int64)
        self.losses: list[float] = []
        self.back: Mapping[int, Tensor] = {}
        self.missed: dict[int, int] = {}
        self.unaligned: dict[int, str] = {}
        self.seconds_training = self.seconds_aggregation = self.sent_at = 0.0
        self._reasons: dict[int, str] = {}
        self._samples: list[int] = []
        self._acted: dict[str, list[float]] = {}

    def asks(self, rows: Tensor) -> None:
        """Note what is asked now."""
        self.rows, self.sent_at = rows, time.perf_counter()

    def nodes(self) -> list[tuple[int, int]]:
        """Return whom a step is asked of: every client that said which samples it holds, and its node."""
        return [
            (member.client, member.node_id)
            for member in self.members
            if member.node_id is not None and member.client not in self.unaligned
        ]

    def answers(
        self, replies: Iterable[Message], read: Callable[[Message], Reply]
    ) -> tuple[dict[int, Reply], dict[int, str]]:
        """Return by client what `read` makes of the replies, and why those of others are none: these are counted.

        Why is told the first time in a round.
        """
        asked = [member for member in self.members if member.client not in self.unaligned]
        accepted, refused = checked(asked, replies, lambda reply, place: read(reply))
        refused |= self.unaligned
        for client, reason in sorted(refused.items()):
            if client not in self._reasons:
                log(WARNING, "Client %s is left out of a step of round %s: %s", client, self.server_round, reason)
                self._reasons[client] = reason
            self.missed[client] = self.missed.get(client, 0) + 1
        return accepted, refused

    def learned(self, done: TopStep, figures: Mapping[str, object]) -> None:
        """Note what came of a step, and what the guard did in it."""
        self.losses.append(done.loss)
        self._samples.append(len(self.rows))
        for name, value in figures.items():
            if isinstance(value, int | float):
                self._acted.setdefault(name, []).append(float(value))

    def account(self) -> RoundAccount:
        """Return the account: of every client that missed a step the first reason and the number of steps."""
        loss = sum(loss * count for loss, count in zip(self.losses, self._samples)) / sum(self._samples)
        return RoundAccount(
            sampled=[member.client for member in self.members],
            dropped=[
                {"client": client, "reason": self._reasons[client], "steps": steps}
                for client, steps in sorted(self.missed.items())
            ],
            defense={name: sum(values) / len(values) for name, values in sorted(self._acted.items())},
            train_loss=loss,
            seconds_training=self.seconds_training,
            seconds_aggregation=self.seconds_aggregation,
        )
