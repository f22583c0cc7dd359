"""Messages of federated multitask learning: a node's own weights out, its own sum back, d numbers each way.

Nothing of a node's points travels, nor of another node's weights: the relation matrix is the server's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from thornbed.protocol.actions import TRAIN_MOCHA
from thornbed.protocol.messages import (
    ARRAYS,
    CONFIG,
    DEFENSE,
    METRICS,
    NUM_EXAMPLES,
    SERVER_ROUND,
    TRAIN_LOSS,
    RefusedReply,
    as_float,
    claimed_weight,
    only,
    refuse_error,
    refuse_numbers,
)
from thornbed.protocol.vector import LARGEST, to_arrays, to_tensors

WEIGHTS, SUM, HELD = "weights", "sum", "held"
CURVATURE, PASSES, HELD_ROUND, CONJUGATE = "curvature", "passes", "held-round", "conjugate"
LOST, ANEW = "lost", "began-anew"

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NodeRequest:
    """What one node is asked: to improve its duals beside these weights.

    Attributes
    ----------
    weights : (d,) float64, the node's own.
    curvature : sigma' K[l, l] of its local problem, > 0.
    passes : over its points, >= 0; less than one for a straggler.
    held_round : the round whose sum of the node's duals is in the weights; 0 where none is.
    held : that sum (d,), for a node that has said that it has lost it; else None, since the node has it.
    """

    weights: Array
    curvature: float
    passes: float
    held_round: int
    server_round: int
    held: Array | None = None


@dataclass(frozen=True, eq=False)
class NodeReply:
    """What a checked reply says: the sum `v` (d,) of the node's duals, the mean conjugate of the same, and its loss.

    `anew` says that the node had lost its duals, and has made new ones.
    """

    v: Array
    conjugate: float
    loss: float
    num_points: float
    metrics: Mapping[str, float]
    anew: bool = False


class LostDuals(RefusedReply):
    """A node has lost its duals, and the sum of them that is in its weights; the text is the node's own."""


def node_message(request: NodeRequest, config: ConfigRecord, node_id: int) -> Message:
    """Ask a node for a round of its local work."""
    said = ConfigRecord(
        {
            **config,
            SERVER_ROUND: request.server_round,
            CURVATURE: request.curvature,
            PASSES: request.passes,
            HELD_ROUND: request.held_round,
        }
    )
    arrays = {WEIGHTS: request.weights} | ({} if request.held is None else {HELD: request.held})
    content = RecordDict(
        {ARRAYS: to_arrays({name: torch.from_numpy(array) for name, array in arrays.items()}), CONFIG: said}
    )
    return Message(content=content, dst_node_id=node_id, message_type=TRAIN_MOCHA, group_id=str(request.server_round))


def read_node_request(message: Message) -> NodeRequest:
    """Return what the server asks of a node."""
    config = only(message.content.config_records, "config record")
    helped = HELD in only(message.content.array_records, "array record")
    vectors = _vectors(message, (WEIGHTS, HELD) if helped else (WEIGHTS,))
    return NodeRequest(
        weights=vectors[0],
        held=vectors[1] if helped else None,
        curvature=float(config[CURVATURE]),  # type: ignore[arg-type]
        passes=float(config[PASSES]),  # type: ignore[arg-type]
        held_round=int(config[HELD_ROUND]),  # type: ignore[arg-type]
        server_round=int(config[SERVER_ROUND]),  # type: ignore[arg-type]
    )


def node_reply(
    request: Message,
    v: Array,
    *,
    conjugate: float,
    loss: float,
    num_points: int,
    defense: Mapping[str, float],
    anew: bool = False,
) -> Message:
    """Answer with the sum of the node's duals, two numbers about them, and what a defense on the node did."""
    figures = {DEFENSE + name: value for name, value in defense.items()} | ({ANEW: 1} if anew else {})
    metrics = MetricRecord({NUM_EXAMPLES: num_points, TRAIN_LOSS: loss, CONJUGATE: conjugate, **figures})
    arrays = to_arrays({SUM: torch.from_numpy(v)})
    return Message(content=RecordDict({ARRAYS: arrays, METRICS: metrics}), reply_to=request)


def lost_reply(request: Message, reason: str) -> Message:
    """Answer that the node has lost its duals and has done nothing; the reason says which node, and what it lost."""
    return Message(content=RecordDict({CONFIG: ConfigRecord({LOST: reason})}), reply_to=request)


def read_node_reply(message: Message, dimension: int) -> NodeReply:
    """Check a reply; raises RefusedReply for an error, other records, another shape, numbers that are not finite or
    beyond the largest float32, and a number of points that is none.

    `dimension` is d, the length of the sum. Raises LostDuals where the node says that it has lost its duals.
    """
    refuse_error(message)
    for record in message.content.config_records.values():
        if LOST in record:
            raise LostDuals(str(record[LOST]))
    metrics = only(message.content.metric_records, "metric record")
    [v] = _vectors(message, (SUM,))
    if len(v) != dimension:
        raise RefusedReply(f"a sum of shape {v.shape} instead of ({dimension},)")
    refuse_numbers(v, "values")
    num_points = claimed_weight(metrics)
    numbers = {name: as_float(value) for name, value in metrics.items() if isinstance(value, int | float)}
    for name in (TRAIN_LOSS, CONJUGATE):
        if not abs(numbers.get(name, math.nan)) <= LARGEST:  # a sum of a few that are larger would be none
            raise RefusedReply(f"no finite number {name}")
    return NodeReply(
        v,
        numbers[CONJUGATE],
        numbers[TRAIN_LOSS],
        num_points,
        numbers,
        anew=bool(numbers.get(ANEW, 0)),
    )


def _vectors(message: Message, names: Sequence[str]) -> list[Array]:
    arrays = only(message.content.array_records, "array record")
    if list(arrays) != list(names):
        raise RefusedReply(f"arrays {', '.join(arrays) or 'none'} instead of {', '.join(names)}")
    try:
        tensors = to_tensors(arrays)
    except (ValueError, TypeError) as error:
        raise RefusedReply(str(error)) from error
    for name, vector in tensors.items():
        if vector.dtype != torch.float64 or vector.dim() != 1:
            raise RefusedReply(f"array {name} is {vector.dtype} with {vector.dim()} axes instead of float64 with one")
    return [tensors[name].numpy() for name in names]
