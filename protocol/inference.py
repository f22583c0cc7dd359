"""Messages of collaborative inference: rows asked for, and a client's embeddings of them.

A client's features and its network stay with it, and so do the labels with the fusion centre. Where a threat model says
that attackers know the fusion centre's model, the request publishes it, to all clients: then it is no secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from torch import Tensor

from thornbed.protocol.actions import QUERY_EMBED
from thornbed.protocol.messages import (
    ARRAYS,
    CONFIG,
    METRICS,
    NUM_EXAMPLES,
    SERVER_ROUND,
    RefusedReply,
    only,
    refuse_error,
)
from thornbed.protocol.vector import to_arrays, to_tensors

ROWS, SPLIT, MODEL, EMBEDDINGS = "rows", "split", "model", "embeddings"


@dataclass(frozen=True, eq=False)
class EmbedRequest:
    """What a client is asked.

    Attributes
    ----------
    split : which samples are meant, "train" or "test".
    rows : (n,) int64, their numbers.
    model : the fusion centre's tensors by name; none where they are not public.
    """

    split: str
    rows: Tensor
    server_round: int
    model: Mapping[str, Tensor] = field(default_factory=dict)


def embed_message(request: EmbedRequest, config: ConfigRecord, node_id: int) -> Message:
    """Ask a node for embeddings."""
    said = ConfigRecord({**config, SERVER_ROUND: request.server_round, SPLIT: request.split})
    content = RecordDict({ROWS: to_arrays({ROWS: request.rows}), MODEL: to_arrays(request.model), CONFIG: said})
    return Message(content=content, dst_node_id=node_id, message_type=QUERY_EMBED, group_id=str(request.server_round))


def read_embed_request(message: Message) -> EmbedRequest:
    """Return what the fusion centre asks of a client."""
    config, arrays = only(message.content.config_records, "config record"), message.content.array_records
    return EmbedRequest(
        split=str(config[SPLIT]),
        rows=to_tensors(arrays[ROWS])[ROWS],
        server_round=int(config[SERVER_ROUND]),  # type: ignore[arg-type]
        model=to_tensors(arrays[MODEL]),
    )


def embed_reply(request: Message, embeddings: Tensor | None) -> Message:
    """Answer with embeddings (n, c) float32; None is a client that keeps silent."""
    arrays = to_arrays({} if embeddings is None else {EMBEDDINGS: embeddings})
    metrics = MetricRecord({NUM_EXAMPLES: 0 if embeddings is None else len(embeddings)})
    return Message(content=RecordDict({ARRAYS: arrays, METRICS: metrics}), reply_to=request)


def read_embed_reply(message: Message, shape: tuple[int, int], *, finite: bool) -> Tensor:
    """Check a reply and return its embeddings (n, c) = `shape`, float32.

    Raises RefusedReply for an error, silence, other records, another shape or type, and with `finite` for values that
    are not finite. Without it they are let through: a purification takes such a block as missing in its own row, and
    the other rows are answered.
    """
    refuse_error(message)
    arrays = only(message.content.array_records, "array record")
    if not arrays:
        raise RefusedReply("it sent nothing")
    if list(arrays) != [EMBEDDINGS]:
        raise RefusedReply(f"arrays {', '.join(arrays)} instead of {EMBEDDINGS}")
    claimed = arrays[EMBEDDINGS]
    if tuple(claimed.shape) != shape or claimed.dtype != "float32":
        raise RefusedReply(f"embeddings are {claimed.dtype} {tuple(claimed.shape)} instead of float32 {shape}")
    embeddings = _read(arrays)
    if finite and not bool(torch.isfinite(embeddings).all()):
        rows = int((~embeddings.isfinite().all(dim=1)).sum())
        raise RefusedReply(f"values that are not finite, in {rows} of {shape[0]} rows")
    return embeddings


def _read(arrays: ArrayRecord) -> Tensor:
    try:
        return to_tensors(arrays)[EMBEDDINGS]
    except (ValueError, TypeError) as error:
        raise RefusedReply(str(error)) from error
