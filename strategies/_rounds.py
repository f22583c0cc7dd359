"""What every strategy does with the replies of a round: read them one by one, keep account, stop where few are left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from logging import WARNING
from typing import TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from thornbed.defenses.reporting import Figure
from thornbed.protocol.messages import ATTACK, DEFENSE, RefusedReply
from thornbed.protocol.vector import LARGEST
from thornbed.strategies._cohort import Member

Reply = TypeVar("Reply")


class RunStopped(RuntimeError):
    """The federation cannot go on; the text says why, and what was done until here is kept."""


@dataclass(kw_only=True)
class RoundAccount:
    """What happened in one round, for the records.

    `replies` has the numbers that accepted replies of horizontal training report, by client.
    """

    sampled: list[int]
    dropped: list[dict[str, int | str]] = field(default_factory=list)
    defense: dict[str, Figure] = field(default_factory=dict)
    attack: dict[str, Figure] = field(default_factory=dict)
    replies: dict[int, Mapping[str, float]] = field(default_factory=dict)
    train_loss: float | None = None
    seconds_training: float = 0.0
    seconds_aggregation: float = 0.0


class ServerTested(Strategy):
    """A strategy that asks no client to evaluate: pass `evaluate_fn` to `start` for the server's own test."""

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask no client."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Return nothing, as nobody was asked."""
        return None


@dataclass(frozen=True)
class SentRound:
    """What was sent in a round: to whom, and when."""

    server_round: int
    members: Sequence[Member]
    at: float

    @classmethod
    def now(cls, server_round: int, members: Sequence[Member]) -> SentRound:
        """Return what is sent now."""
        return cls(server_round, members, time.perf_counter())

    def gather(
        self, replies: Iterable[Message], read: Callable[[Message, int], Reply], *, at_least: int
    ) -> tuple[dict[int, Reply], RoundAccount]:
        """Return what `read` makes of the replies, by client in the order of the draw, and the account of the round.

        `read` gets a reply and the number of those accepted before it. A reply that it refuses with RefusedReply is
        dropped alone and counted with its reason. Raises RunStopped where fewer than `at_least` are left.
        """
        account = RoundAccount(
            sampled=[member.client for member in self.members], seconds_training=time.perf_counter() - self.at
        )
        accepted, refused = checked(self.members, replies, read)
        for client, reason in refused.items():
            account.dropped.append({"client": client, "reason": reason})
            log(WARNING, "Client %s is left out of round %s: %s", client, self.server_round, reason)
        if len(accepted) < at_least:
            reasons = "; ".join(sorted({str(drop["reason"]) for drop in account.dropped})) or "nobody was asked"
            raise RunStopped(
                f"round {self.server_round} has {len(accepted)} usable replies and needs {at_least} ({reasons})"
            )
        return accepted, account


def checked(
    members: Sequence[Member], replies: Iterable[Message], read: Callable[[Message, int], Reply]
) -> tuple[dict[int, Reply], dict[int, str]]:
    """Return by client what `read` makes of the replies, and why others are refused; see `SentRound.gather`."""
    arrived = {reply.metadata.src_node_id: reply for reply in replies}
    # Of a node that went away the SuperLink says so, in a reply of its own that names no node.
    others = set(arrived) - {member.node_id for member in members}
    absent = next((arrived[node].error.reason for node in sorted(others) if arrived[node].has_error()), None)
    accepted: dict[int, Reply] = {}
    refused: dict[int, str] = {}
    # In the order of the draw, not of arrival: a sum of floats depends on its order.
    for member in members:
        try:
            accepted[member.client] = read(_arrived(member, arrived, absent), len(accepted))
        except RefusedReply as reason:
            refused[member.client] = str(reason)
    return accepted, refused


def _arrived(member: Member, arrived: Mapping[int, Message], absent: str | None) -> Message:
    if member.node_id is None:
        raise RefusedReply("no node holds this client now")
    if (reply := arrived.get(member.node_id)) is None:
        raise RefusedReply(f"no reply: {absent}" if absent else "no reply in time")
    return reply


def mean_finite(values: Iterable[float]) -> float | None:
    """Return the mean of the values that are finite, and within the largest float32; None where none is."""
    finite = [value for value in values if abs(value) <= LARGEST]  # the sum of a few that are larger would be none
    return sum(finite) / len(finite) if finite else None


def of_clients(replies: Iterable[Mapping[str, float]]) -> dict[str, Figure]:
    """Return the mean of every figure that defenses on clients report, `clients_NAME`, over those that report it."""
    return {f"clients_{name}": sum(values) / len(values) for name, values in _told(replies, DEFENSE).items()}


def of_attackers(replies: Iterable[Mapping[str, float]]) -> dict[str, Figure]:
    """Return every figure that attackers report, one number of each attacker, in the order of the replies."""
    return dict(_told(replies, ATTACK))


def _told(replies: Iterable[Mapping[str, float]], prefix: str) -> dict[str, list[float]]:
    """Return by name the numbers that replies report under a prefix, ascending by name."""
    found: dict[str, list[float]] = {}
    for metrics in replies:
        told = [(name, value) for name, value in metrics.items() if name.startswith(prefix)]
        for name, value in told[:8]:  # whoever sends thousands does not fill the records
            if abs(value) <= LARGEST and len(name) < 40:
                found.setdefault(name.removeprefix(prefix), []).append(value)
    return dict(sorted(found.items()))
