"""What an agent is asked comes through as it was, and a reply that is none is refused with its reason."""

from __future__ import annotations

import math

import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode

from thornbed.flower_apps.client_app import app
from thornbed.flower_apps.engines.inline import InlineGrid
from thornbed.protocol.inference import EmbedRequest, embed_message, embed_reply, read_embed_reply, read_embed_request
from thornbed.protocol.messages import RefusedReply


@pytest.fixture
def asked() -> Message:
    InlineGrid(app, 1, {})  # messages are made for a task of Flower's
    request = EmbedRequest("test", torch.arange(3), 2, {"w": torch.ones(2, dtype=torch.float64)})
    return embed_message(request, ConfigRecord({"k": 1}), 7)


def test_a_request_comes_through(asked):
    found = read_embed_request(asked)
    assert (found.split, found.server_round, found.rows.tolist()) == ("test", 2, [0, 1, 2])
    torch.testing.assert_close(found.model["w"], torch.ones(2, dtype=torch.float64))
    assert asked.metadata.message_type == "query.embed"
    assert asked.content["config"]["k"] == 1


def test_a_reply_comes_through_and_so_does_a_row_that_is_not_finite_where_it_may(asked):
    sent = torch.tensor([[1.0, 2.0], [math.nan, 0.0], [3.0, math.inf]])
    found = read_embed_reply(embed_reply(asked, sent), (3, 2), finite=False)
    torch.testing.assert_close(found, sent, equal_nan=True)
    with pytest.raises(RefusedReply, match="values that are not finite, in 2 of 3 rows"):
        read_embed_reply(embed_reply(asked, sent), (3, 2), finite=True)


def _with(asked: Message, **arrays: Array) -> Message:
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord({})}), reply_to=asked)


def test_what_is_no_reply_is_refused_with_its_reason(asked):
    right = torch.zeros(3, 2)
    good = embed_reply(asked, right).content["arrays"]["embeddings"]
    cut = Array(dtype=good.dtype, shape=good.shape, stype=good.stype, data=good.data[:-4])
    broken = {
        "it sent nothing": embed_reply(asked, None),
        r"embeddings are float32 \(2, 2\) instead of float32 \(3, 2\)": embed_reply(asked, right[:2]),
        r"embeddings are float64 \(3, 2\) instead of": embed_reply(asked, right.double()),
        "arrays other instead of embeddings": _with(asked, other=good),
        "embeddings holds 20 bytes": _with(asked, embeddings=cut),
        "0 array records instead of one": Message(RecordDict({}), reply_to=asked),
        "error": Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "it fell over"), reply_to=asked),
    }
    for reason, reply in broken.items():
        with pytest.raises(RefusedReply, match=reason):
            read_embed_reply(reply, (3, 2), finite=True)
