"""Messages of horizontal training: what is in them, and the one place where a reply is checked.

The record names are Flower's own (`arrays`, `config`, `metrics`, `num-examples`, `server-round`), so a client app made
from Flower's templates can stand behind these strategies, and Flower's strategies can stand before these clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from torch import Tensor

from protocol.actions import IDENTIFY, TRAIN
from protocol.vector import Layout

Record = TypeVar("Record")

ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
NUM_EXAMPLES, SERVER_ROUND, TRAIN_LOSS = "num-examples", "server-round", "train-loss"
DEFENSE = "defense-"  # before the name of a figure that a defense on the client reports
PARTITION_ID, ROLE = "partition-id", "role"


class RefusedReply(ValueError):
    """A reply that must not enter the aggregate; the text says why, in at most 200 printable characters."""

    def __init__(self, reason: str) -> None:
        super().__init__("".join(char if char.isprintable() else " " for char in reason[:200]))


@dataclass(frozen=True)
class TrainReply:
    """What a checked reply says beside its arrays."""

    num_examples: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Identity:
    """Who a node is: the client (partition) it holds and the role it plays."""

    partition_id: int
    role: str


def train_message(arrays: ArrayRecord, config: ConfigRecord, server_round: int, node_id: int) -> Message:
    """Ask a node to train the model in `arrays`."""
    settings = ConfigRecord({**config, SERVER_ROUND: server_round})
    content = RecordDict({ARRAYS: arrays, CONFIG: settings})
    return Message(content=content, dst_node_id=node_id, message_type=TRAIN, group_id=str(server_round))


def train_reply(
    request: Message,
    arrays: ArrayRecord,
    num_examples: int,
    train_loss: float,
    defense: Mapping[str, float] | None = None,
) -> Message:
    """Answer a training message with the arrays of the trained model, and what a defense on the client did."""
    figures = {DEFENSE + name: value for name, value in (defense or {}).items()}
    metrics = MetricRecord({NUM_EXAMPLES: num_examples, TRAIN_LOSS: train_loss, **figures})
    return Message(content=RecordDict({ARRAYS: arrays, METRICS: metrics}), reply_to=request)


def evaluate_reply(request: Message, loss: float, accuracy: float, num_examples: int) -> Message:
    """Answer an evaluation message."""
    metrics = MetricRecord({"loss": loss, "accuracy": accuracy, NUM_EXAMPLES: num_examples})
    return Message(content=RecordDict({METRICS: metrics}), reply_to=request)


def read_request(message: Message) -> tuple[ArrayRecord, int]:
    """Return the arrays and the round of a training or evaluation message."""
    arrays = only(message.content.array_records, "array record")
    config = next(iter(message.content.config_records.values()), ConfigRecord())
    return arrays, int(config.get(SERVER_ROUND, 0))  # type: ignore[arg-type]


def read_train_reply(
    message: Message, layout: Layout, current: Tensor, out: Tensor, statistics: Tensor | None = None
) -> TrainReply:
    """Check a training reply and write its update, its parameters minus the `current` ones (d,), into `out` (d,).

    Its statistics (b,) are checked too, and written as they are into `statistics` where that is given. Raises
    RefusedReply for an error reply, missing or extra records and arrays, a wrong shape or dtype, values that are not
    finite, and a number of examples that is missing, not a number, or not above zero.
    """
    refuse_error(message)
    arrays = only(message.content.array_records, "array record")
    metrics = only(message.content.metric_records, "metric record")
    if (mismatch := layout.mismatch(arrays)) is not None:
        raise RefusedReply(mismatch)
    num_examples = metrics.get(NUM_EXAMPLES)
    if not isinstance(num_examples, int | float) or isinstance(num_examples, bool):
        raise RefusedReply(f"no number {NUM_EXAMPLES}")
    # Beyond 2**53 a count is no count: a few of them would overflow the sum of the weights.
    if not 0 < num_examples <= 2**53:
        raise RefusedReply(f"{NUM_EXAMPLES} is {str(num_examples)[:30]}")
    try:
        layout.flatten(arrays, out)
        measured = layout.flatten_statistics(arrays, statistics)
    except ValueError as error:
        raise RefusedReply(str(error)) from error
    # In numpy: for one vector, waking torch's threads costs more than they save. The update is what is looked at, as
    # the difference of two finite models can overflow.
    update = out.numpy()
    with np.errstate(all="ignore"):
        np.subtract(update, current.numpy(), out=update)
    if not np.isfinite(update).all():
        raise RefusedReply("values that are not finite")
    if not np.isfinite(measured.numpy()).all():
        raise RefusedReply("statistics that are not finite")
    numbers = {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}
    return TrainReply(float(num_examples), numbers)


def identify_message(node_id: int) -> Message:
    """Ask a node who it is."""
    content = RecordDict({CONFIG: ConfigRecord({"ask": "identity"})})
    return Message(content=content, dst_node_id=node_id, message_type=IDENTIFY, group_id="identify")


def identify_reply(request: Message, identity: Identity) -> Message:
    """Tell the server which client a node holds, and its role (a testbed records it; no defense is told)."""
    record = ConfigRecord({PARTITION_ID: identity.partition_id, ROLE: identity.role})
    return Message(content=RecordDict({CONFIG: record}), reply_to=request)


def read_identity(message: Message) -> Identity:
    """Return who a node says it is; raises RefusedReply where it does not say."""
    if message.has_error():
        lines = (message.error.reason or "no reason given").strip().splitlines()
        raise RefusedReply(lines[-1] if lines else "no reason given")
    record = only(message.content.config_records, "config record")
    partition_id, role = record.get(PARTITION_ID), record.get(ROLE)
    if not isinstance(partition_id, int) or not isinstance(role, str):
        raise RefusedReply("no partition-id and role")
    return Identity(partition_id, role)


def refuse_error(message: Message) -> None:
    """Raise RefusedReply for an error reply, with the last line of its reason."""
    if message.has_error():
        # Only the last line: where the reason carries a traceback, that is where the exception is.
        reason = (message.error.reason or "no reason given").strip().splitlines()
        raise RefusedReply(f"error {message.error.code}: {reason[-1] if reason else 'no reason given'}")


def only(records: Mapping[str, Record], what: str) -> Record:
    """Return the one record of its kind; raises RefusedReply for none and for several."""
    if len(records) != 1:
        raise RefusedReply(f"{len(records)} {what}s instead of one")
    return next(iter(records.values()))
