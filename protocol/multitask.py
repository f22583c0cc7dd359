"""Messages of federated multitask learning: a node's own weights out, its own sum back, d numbers each way.

Nothing of a node's points travels, nor of another node's weights: the relation matrix is the server's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from protocol.actions import TRAIN_MOCHA
from protocol.messages import (
    ARRAYS,
    CONFIG,
    DEFENSE,
    METRICS,
    NUM_EXAMPLES,
    SERVER_ROUND,
    TRAIN_LOSS,
    RefusedReply,
    only,
    refuse_error,
)
from protocol.vector import to_arrays, to_tensors

WEIGHTS, SUM = "weights", "sum"
CURVATURE, PASSES, KNOWN, CONJUGATE = "curvature", "passes", "known", "conjugate"

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NodeRequest:
    """What one node is asked: to improve its duals beside these weights.

    Attributes
    ----------
    weights : (d,) float64, the node's own.
    curvature : sigma' K[l, l] of its local problem, > 0.
    passes : over its points, >= 0; less than one for a straggler.
    known : whether the server has a sum of the node's duals: a node without duals has then lost them.
    """

    weights: Array
    curvature: float
    passes: float
    known: bool
    server_round: int


@dataclass(frozen=True, eq=False)
class NodeReply:
    """What a checked reply says: the sum `v` (d,) of the node's duals, the mean conjugate of the same, and its loss."""

    v: Array
    conjugate: float
    loss: float
    num_points: int
    metrics: Mapping[str, float]


def node_message(request: NodeRequest, config: ConfigRecord, node_id: int) -> Message:
    """Ask a node for a round of its local work."""
    said = ConfigRecord(
        {
            **config,
            SERVER_ROUND: request.server_round,
            CURVATURE: request.curvature,
            PASSES: request.passes,
            KNOWN: request.known,
        }
    )
    content = RecordDict({ARRAYS: to_arrays({WEIGHTS: torch.from_numpy(request.weights)}), CONFIG: said})
    return Message(content=content, dst_node_id=node_id, message_type=TRAIN_MOCHA, group_id=str(request.server_round))


def read_node_request(message: Message) -> NodeRequest:
    """Return what the server asks of a node."""
    config = only(message.content.config_records, "config record")
    return NodeRequest(
        weights=_vector(message, WEIGHTS),
        curvature=float(config[CURVATURE]),  # type: ignore[arg-type]
        passes=float(config[PASSES]),  # type: ignore[arg-type]
        known=bool(config[KNOWN]),
        server_round=int(config[SERVER_ROUND]),  # type: ignore[arg-type]
    )


def node_reply(
    request: Message, v: Array, *, conjugate: float, loss: float, num_points: int, defense: Mapping[str, float]
) -> Message:
    """Answer with the sum of the node's duals, two numbers about them, and what a defense on the node did."""
    figures = {DEFENSE + name: value for name, value in defense.items()}
    metrics = MetricRecord({NUM_EXAMPLES: num_points, TRAIN_LOSS: loss, CONJUGATE: conjugate, **figures})
    return Message(
        content=RecordDict({ARRAYS: to_arrays({SUM: torch.from_numpy(v)}), METRICS: metrics}), reply_to=request
    )


def read_node_reply(message: Message, dimension: int) -> NodeReply:
    """Check a reply; raises RefusedReply for an error, other records, another shape, and numbers that are not finite.

    `dimension` is d, the length of the sum.
    """
    refuse_error(message)
    metrics = only(message.content.metric_records, "metric record")
    v = _vector(message, SUM)
    if v.shape != (dimension,):
        raise RefusedReply(f"a sum of shape {v.shape} instead of ({dimension},)")
    if not np.isfinite(v).all():
        raise RefusedReply("values that are not finite")
    numbers = {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}
    for name in (NUM_EXAMPLES, TRAIN_LOSS, CONJUGATE):
        if not math.isfinite(numbers.get(name, math.nan)):
            raise RefusedReply(f"no finite number {name}")
    return NodeReply(v, numbers[CONJUGATE], numbers[TRAIN_LOSS], int(numbers[NUM_EXAMPLES]), numbers)


def _vector(message: Message, name: str) -> Array:
    arrays = only(message.content.array_records, "array record")
    if list(arrays) != [name]:
        raise RefusedReply(f"arrays {', '.join(arrays) or 'none'} instead of {name}")
    try:
        vector = to_tensors(arrays)[name]
    except (ValueError, TypeError) as error:
        raise RefusedReply(str(error)) from error
    if vector.dtype != torch.float64 or vector.dim() != 1:
        raise RefusedReply(f"array {name} is {vector.dtype} with {vector.dim()} axes instead of float64 with one")
    return vector.numpy()
