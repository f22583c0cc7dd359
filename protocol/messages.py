"""Messages of horizontal training: what is in them, and the one place where a reply is checked.

The record names are Flower's own (`arrays`, `config`, `metrics`, `num-examples`, `server-round`), so a client app made
from Flower's templates can stand behind these strategies, and Flower's strategies can stand before these clients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from torch import Tensor

from thornbed.protocol.actions import EVALUATE, IDENTIFY, TRAIN
from thornbed.protocol.vector import LARGEST, Layout

Record = TypeVar("Record")

ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
NUM_EXAMPLES, SERVER_ROUND, TRAIN_LOSS = "num-examples", "server-round", "train-loss"
DEFENSE = "defense-"  # before the name of a figure that a defense on the client reports
ATTACK = "attack-"  # before that of a figure of an attack
LAST_ROUND = "last-round"
PARTITION_ID, ROLE, PROBLEM = "partition-id", "role", "problem"
LONGEST_ROLE, LONGEST_PROBLEM = 100, 300  # characters


class RefusedReply(ValueError):
    """A reply that must not enter the aggregate; the text says why, in at most 200 printable characters."""

    def __init__(self, reason: str) -> None:
        super().__init__(_printable(reason, 200))


@dataclass(frozen=True)
class TrainReply:
    """What a checked reply says beside its arrays, and the records as they came."""

    num_examples: float
    metrics: Mapping[str, float]
    content: RecordDict


@dataclass(frozen=True)
class Identity:
    """Who a node says it is.

    Attributes
    ----------
    partition_id : the client (partition) that the node holds.
    role : the role that the node plays, 1 to 100 printable characters.
    problem : why a malicious node cannot carry out its attack, at most 300 printable characters; empty where it can.
    """

    partition_id: int
    role: str
    problem: str = ""


def train_message(
    arrays: ArrayRecord,
    config: ConfigRecord,
    server_round: int,
    node_id: int,
    last_round: int = 0,
    keys: tuple[str, str] = (ARRAYS, CONFIG),
) -> Message:
    """Ask a node to train the model in `arrays`.

    last_round : the latest round of which the server took an answer of this client, 0 without one: whatever the client
        kept after that round is to be there.
    keys : the names of the two records, that of the model first.
    """
    settings = ConfigRecord({**config, SERVER_ROUND: server_round, LAST_ROUND: last_round})
    content = RecordDict(dict(zip(keys, (arrays, settings), strict=True)))
    return Message(content=content, dst_node_id=node_id, message_type=TRAIN, group_id=str(server_round))


def evaluate_message(
    arrays: ArrayRecord,
    config: ConfigRecord,
    server_round: int,
    node_id: int,
    keys: tuple[str, str] = (ARRAYS, CONFIG),
) -> Message:
    """Ask a node to test the model in `arrays`; `keys` as in `train_message`."""
    settings = ConfigRecord({**config, SERVER_ROUND: server_round})
    content = RecordDict(dict(zip(keys, (arrays, settings), strict=True)))
    return Message(content=content, dst_node_id=node_id, message_type=EVALUATE, group_id=str(server_round))


def train_reply(
    request: Message,
    arrays: ArrayRecord,
    num_examples: int,
    train_loss: float,
    defense: Mapping[str, float] | None = None,
    attack: Mapping[str, float] | None = None,
) -> Message:
    """Answer a training message with the arrays of the trained model, and what a defense on the client did.

    attack : figures of an attack, for the records of the testbed; no defense is shown them.
    """
    figures = {DEFENSE + name: value for name, value in (defense or {}).items()}
    figures |= {ATTACK + name: value for name, value in (attack or {}).items()}
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


def last_round_of(message: Message) -> int:
    """Return the latest round of which the server took an answer of this client; 0 where there is none."""
    config = next(iter(message.content.config_records.values()), ConfigRecord())
    return int(config.get(LAST_ROUND, 0))  # type: ignore[arg-type]


def read_train_reply(
    message: Message,
    layout: Layout,
    current: Tensor,
    out: Tensor,
    statistics: Tensor | None = None,
    weighted_by: str = NUM_EXAMPLES,
) -> TrainReply:
    """Check a training reply and write its update, its parameters minus the `current` ones (d,), into `out` (d,).

    Its statistics (b,) are checked too, and written as they are into `statistics` where that is given. Raises
    RefusedReply for an error reply, missing or extra records and arrays, a wrong shape or dtype, values that are not
    finite or beyond the largest float32, and a number of examples (`weighted_by`) that is missing, not a number, or not
    above zero.
    """
    refuse_error(message)
    arrays = only(message.content.array_records, "array record")
    metrics = only(message.content.metric_records, "metric record")
    if (mismatch := layout.mismatch(arrays)) is not None:
        raise RefusedReply(mismatch)
    num_examples = claimed_weight(metrics, weighted_by)
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
    refuse_numbers(update, "values")
    refuse_numbers(measured.numpy(), "statistics")
    numbers = {name: as_float(value) for name, value in metrics.items() if isinstance(value, int | float)}
    return TrainReply(num_examples, numbers, message.content)


def claimed_weight(metrics: MetricRecord, name: str = NUM_EXAMPLES) -> float:
    """Return the weight that a reply claims; raises RefusedReply where that is no number in (0, 2**53]."""
    weight = metrics.get(name)
    if not isinstance(weight, int | float) or isinstance(weight, bool):
        raise RefusedReply(f"no number {name}")
    # Beyond 2**53 a count is no count: a few of them would overflow the sum of the weights.
    if not 0 < weight <= 2**53:
        raise RefusedReply(f"{name} is {str(weight)[:30]}")
    return float(weight)


def as_float(number: int | float) -> float:
    """Return a number as a float; one that is beyond all of them is infinite."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def refuse_numbers(values: np.ndarray, what: str) -> None:
    """Raise RefusedReply for values that are not finite, and for a float64 beyond the largest float32."""
    if not np.isfinite(values).all():
        raise RefusedReply(f"{what} that are not finite")
    # What is made of the values sums squares in float64, where those of float32 have room.
    if values.dtype == np.float64 and values.size and max(values.max(), -values.min()) > LARGEST:
        raise RefusedReply(f"{what} beyond {LARGEST:g}, the largest float32")


def identify_message(node_id: int) -> Message:
    """Ask a node who it is."""
    content = RecordDict({CONFIG: ConfigRecord({"ask": "identity"})})
    return Message(content=content, dst_node_id=node_id, message_type=IDENTIFY, group_id="identify")


def identify_reply(request: Message, identity: Identity) -> Message:
    """Tell the server which client a node holds, and its role (a testbed records it; no defense is told).

    The problem is sent only where there is one, in one line, cut after 300 characters.
    """
    record = ConfigRecord({PARTITION_ID: identity.partition_id, ROLE: identity.role})
    if problem := _printable(" ".join(identity.problem.split()), LONGEST_PROBLEM):
        record[PROBLEM] = problem
    return Message(content=RecordDict({CONFIG: record}), reply_to=request)


def read_identity(message: Message) -> Identity:
    """Return who a node says it is.

    Raises RefusedReply for an error reply, and where the partition-id is no whole number (True and False are none), or
    the role or the problem is no printable text, blank, or longer than `Identity` says. Whether there is such a client
    the caller knows.
    """
    if message.has_error():
        lines = (message.error.reason or "no reason given").strip().splitlines()
        raise RefusedReply(lines[-1] if lines else "no reason given")
    record = only(message.content.config_records, "config record")
    partition_id = record.get(PARTITION_ID)
    if not isinstance(partition_id, int) or isinstance(partition_id, bool):
        raise RefusedReply(f"no whole number {PARTITION_ID}")
    role = _text(record, ROLE, LONGEST_ROLE)
    problem = _text(record, PROBLEM, LONGEST_PROBLEM) if PROBLEM in record else ""
    return Identity(partition_id, role, problem)


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


def _text(record: ConfigRecord, key: str, longest: int) -> str:
    """Return a text of a record; raises RefusedReply for one that no log and no record is to hold."""
    text = record.get(key)
    if not isinstance(text, str) or not text.strip() or len(text) > longest or not text.isprintable():
        raise RefusedReply(f"{key} is no printable text of 1 to {longest} characters")
    return text


def _printable(text: str, longest: int) -> str:
    return "".join(char if char.isprintable() else " " for char in text[:longest])
