"""Messages of vertical training: one a step, with the gradient of the last embedding and the rows to embed next.

A client's features and its network stay with it, and so do the labels with the server: what travels is ids of samples,
embeddings, and gradients of embeddings. Before the first step the server asks once which samples a client holds. After
the last step of a round the gradient goes with the message that asks for embeddings of test samples.

A testbed wants to know how an attack does. So that message also names test samples that are to be attacked, and
training samples to compare what an adversary sends with what is true; adversaries answer these, honest clients have
nothing to add.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from torch import Tensor

from thornbed.protocol.actions import EVALUATE_SPLIT, QUERY_ROWS, TRAIN_SPLIT
from thornbed.protocol.messages import ARRAYS, CONFIG, SERVER_ROUND, RefusedReply, only, refuse_error
from thornbed.protocol.vector import to_arrays, to_tensors

STEP, GRADIENT, ROWS, ATTACKED, PROBE = "step", "gradient", "rows", "attacked", "probe"
TRAIN, TEST, NEW = "train", "test", "new"
EMBEDDINGS, TRIGGERED, REPLACED, TRUE = "embeddings", "triggered", "replaced", "true"


@dataclass(frozen=True, eq=False)
class StepRequest:
    """What a client is asked in a step.

    Attributes
    ----------
    rows : (b,) int64, ids of the training samples to embed.
    gradient : (b', d) of the loss in the client's last embedding; None where that was not used.
    """

    server_round: int
    step: int
    rows: Tensor
    gradient: Tensor | None


@dataclass(frozen=True, eq=False)
class EvaluationRequest:
    """What a client is asked after a round.

    Attributes
    ----------
    rows : (n,) int64, ids of the test samples to embed.
    attacked : (m,) int64, those of them that adversaries also send with the trigger, and replaced without one.
    probe : (p,) int64, ids of training samples, to be sent as in a step; adversaries add what they are in truth.
    gradient : as in a step.
    """

    server_round: int
    rows: Tensor
    attacked: Tensor
    probe: Tensor
    gradient: Tensor | None


@dataclass(frozen=True, eq=False)
class Held:
    """Which samples a client holds: ids (N,) of training and (M,) of test samples, int64."""

    train: Tensor
    test: Tensor


def rows_message(server_round: int, config: ConfigRecord, node_id: int, *, new: bool) -> Message:
    """Ask a node which samples it holds, before its first step; it is `new` where its client never answered a step."""
    content = RecordDict({CONFIG: ConfigRecord({**config, SERVER_ROUND: server_round, NEW: new})})
    return Message(content=content, dst_node_id=node_id, message_type=QUERY_ROWS, group_id=str(server_round))


def read_rows_request(message: Message) -> tuple[int, bool]:
    """Return the round in which a node is asked which samples it holds, and whether its client is new."""
    config = only(message.content.config_records, "config record")
    return int(config[SERVER_ROUND]), bool(config[NEW])  # type: ignore[arg-type]


def rows_reply(request: Message, held: Held) -> Message:
    """Answer with the ids of the samples held."""
    return Message(content=_content({TRAIN: held.train, TEST: held.test}), reply_to=request)


def read_rows_reply(message: Message) -> Held:
    """Check such an answer; raises RefusedReply for anything that is not two vectors of ids."""
    refuse_error(message)
    arrays = only(message.content.array_records, "array record")
    for name in (TRAIN, TEST):
        if name not in arrays or len(arrays[name].shape) != 1 or arrays[name].dtype != "int64":
            raise RefusedReply(f"no vector of int64 called {name}")
    tensors = _tensors(arrays)
    return Held(tensors[TRAIN], tensors[TEST])


def step_message(request: StepRequest, config: ConfigRecord, node_id: int) -> Message:
    """Ask a node for a step."""
    said = {**config, SERVER_ROUND: request.server_round, STEP: request.step}
    content = _content({ROWS: request.rows, GRADIENT: request.gradient}, said)
    group = f"{request.server_round}.{request.step}"
    return Message(content=content, dst_node_id=node_id, message_type=TRAIN_SPLIT, group_id=group)


def read_step(message: Message) -> StepRequest:
    """Return what the server asks in a step."""
    config, tensors = only(message.content.config_records, "config record"), _request(message)
    return StepRequest(
        server_round=int(config[SERVER_ROUND]),  # type: ignore[arg-type]
        step=int(config[STEP]),  # type: ignore[arg-type]
        rows=tensors[ROWS],
        gradient=tensors.get(GRADIENT),
    )


def evaluation_message(request: EvaluationRequest, config: ConfigRecord, node_id: int) -> Message:
    """Ask a node for embeddings of test samples."""
    arrays = {
        ROWS: request.rows,
        ATTACKED: request.attacked,
        PROBE: request.probe,
        GRADIENT: request.gradient,
    }
    content = _content(arrays, {**config, SERVER_ROUND: request.server_round})
    group = str(request.server_round)
    return Message(content=content, dst_node_id=node_id, message_type=EVALUATE_SPLIT, group_id=group)


def read_evaluation(message: Message) -> EvaluationRequest:
    """Return what the server asks after a round."""
    config, tensors = only(message.content.config_records, "config record"), _request(message)
    return EvaluationRequest(
        server_round=int(config[SERVER_ROUND]),  # type: ignore[arg-type]
        rows=tensors[ROWS],
        attacked=tensors[ATTACKED],
        probe=tensors[PROBE],
        gradient=tensors.get(GRADIENT),
    )


def embeddings_reply(request: Message, embeddings: Mapping[str, Tensor]) -> Message:
    """Answer with embeddings (n, d) under their names."""
    return Message(content=_content(embeddings), reply_to=request)


def read_embeddings(
    message: Message, expected: Mapping[str, int], size: int, *, optional: frozenset[str] = frozenset()
) -> dict[str, Tensor]:
    """Check an answer and return its embeddings, (expected[name], size) float32 each.

    Raises RefusedReply for an error, other records, a name that is missing and not optional or was not asked for,
    another shape or type, and numbers that are not finite.
    """
    refuse_error(message)
    arrays = only(message.content.array_records, "array record")
    if missing := sorted(expected.keys() - optional - arrays.keys()):
        raise RefusedReply(f"missing array {missing[0]}")
    if extra := sorted(arrays.keys() - expected.keys()):
        raise RefusedReply(f"unexpected array {extra[0]}")
    for name, array in arrays.items():
        if (shape := tuple(array.shape)) != (expected[name], size):
            raise RefusedReply(f"array {name} has shape {shape} instead of {(expected[name], size)}")
        if array.dtype != "float32":
            raise RefusedReply(f"array {name} has dtype {array.dtype} instead of float32")
    tensors = _tensors(arrays)
    # A sum of float32 in float64 has no overflow: it is finite just where they all are, and is there six times as fast.
    if not all(math.isfinite(tensor.sum(dtype=torch.float64)) for tensor in tensors.values()):
        raise RefusedReply("values that are not finite")
    return tensors


def _content(tensors: Mapping[str, Tensor | None], said: Mapping[str, object] | None = None) -> RecordDict:
    arrays = to_arrays({name: tensor for name, tensor in tensors.items() if tensor is not None})
    if said is None:
        return RecordDict({ARRAYS: arrays})
    return RecordDict({ARRAYS: arrays, CONFIG: ConfigRecord(dict(said))})  # type: ignore[arg-type]


def _request(message: Message) -> dict[str, Tensor]:
    return to_tensors(only(message.content.array_records, "array record"))


def _tensors(arrays: ArrayRecord) -> dict[str, Tensor]:
    try:
        return to_tensors(arrays)
    except (ValueError, TypeError) as error:
        raise RefusedReply(str(error)) from error
