"""A reply in which one thing is changed is refused with a reason, or what is read of it is as good as of any other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thornbed.flower_apps.client_app import app
from thornbed.flower_apps.engines.inline import InlineGrid
from thornbed.protocol import inference, messages, multitask, reported, split
from thornbed.protocol.messages import Identity, RefusedReply
from thornbed.protocol.vector import Layout, to_arrays

MODEL = {"w": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "bn.running_mean": torch.zeros(2), "count": torch.tensor(7)}
ODD_NUMBERS = [0, -1, 2**53, 2**63 - 1, -(2**62), 0.5, math.nan, math.inf, -math.inf, 1e308, 10**400]
ODD_LISTS: list[Any] = [[1], [1.0, math.nan], []]
ADDED = ["other", "defense-x", "attack-x", "began-anew", "lost", "problem", "new", "train-loss", "w\nx"]
ODD_TEXTS = ["", " ", "a\nb", "\0", "x" * 400, "é", "1", b"bytes", True, 3, 2.5, ["a"]]
DTYPES = [
    "float32",
    "float64",
    "float16",
    "int64",
    "int8",
    "bool",
    ">f4",
    "object",
    "complex64",
    "U3",
    "bfloat16",
    "no",
    "f4,(",
    "int8,(",
    "(2,)f4",
    "i4,i4",
    "M8[s]",
    "V4",
]
SHAPES = [(), (0,), (3,), (2, 2), (10**9, 10**9), (-1,)]
KINDS_OF = [torch.float32, torch.float64, torch.float16, torch.int64, torch.bool]
PICKLED = b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."


@dataclass(frozen=True)
class Kind:
    """How a kind of reply is made, how it is read, and what has to hold of what was read."""

    make: Callable[[], Message]
    read: Callable[[Message], Any]
    good: Callable[[Any], bool]


def _asked() -> Message:
    return messages.train_message(to_arrays(MODEL), ConfigRecord({}), 1, 2)


def _update(message: Message) -> Any:
    layout, update, statistics = Layout.of(to_arrays(MODEL)), torch.full((4,), math.nan), torch.full((2,), math.nan)
    return messages.read_train_reply(message, layout, torch.zeros(4), update, statistics), update, statistics


def _finite(*tensors: torch.Tensor) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


KINDS = {
    "train": Kind(
        lambda: messages.train_reply(_asked(), to_arrays(MODEL), 9, 0.5, {"masked": 0.1}),
        _update,
        lambda found: 0 < found[0].num_examples <= 2**53 and _finite(*found[1:]),
    ),
    "train.mocha": Kind(
        lambda: multitask.node_reply(_asked(), np.ones(3), conjugate=0.1, loss=0.2, num_points=4, defense={}),
        lambda message: multitask.read_node_reply(message, 3),
        lambda found: (
            found.v.shape == (3,)
            and np.isfinite(found.v).all()
            and math.isfinite(found.conjugate)
            and math.isfinite(found.loss)
            and 0 < found.num_points <= 2**53
        ),
    ),
    "query.rows": Kind(
        lambda: split.rows_reply(_asked(), split.Held(torch.arange(3), torch.arange(2))),
        split.read_rows_reply,
        lambda found: found.train.dtype == found.test.dtype == torch.int64 and found.train.dim() == 1,
    ),
    "train.split": Kind(
        lambda: split.embeddings_reply(_asked(), {"embeddings": torch.ones(3, 2)}),
        lambda message: split.read_embeddings(message, {"embeddings": 3}, 2),
        lambda found: found["embeddings"].shape == (3, 2) and _finite(found["embeddings"]),
    ),
    "query.embed": Kind(
        lambda: inference.embed_reply(_asked(), torch.ones(3, 2)),
        lambda message: inference.read_embed_reply(message, (3, 2), finite=True),
        lambda found: found.shape == (3, 2) and found.dtype == torch.float32 and _finite(found),
    ),
    "query.identify": Kind(
        lambda: messages.identify_reply(messages.identify_message(2), Identity(3, "benign", "no data")),
        messages.read_identity,
        lambda found: type(found.partition_id) is int and found.role.isprintable() and len(found.role) <= 100,
    ),
    "evaluate": Kind(
        lambda: messages.evaluate_reply(_asked(), 0.5, 0.7, 9),
        reported.read_evaluate_reply,
        lambda found: 0 < next(iter(found.metric_records.values()))["num-examples"] <= 2**53,
    ),
}


def _changed_array(draw: Any, array: Array) -> Array:
    """Return an array of which the record, the header or the bytes are another, or a whole one of other numbers."""
    if draw(st.booleans()):
        shape, kind = draw(st.sampled_from([tuple(array.shape), (3,), (2, 3), (0,)])), draw(st.sampled_from(KINDS_OF))
        number = draw(st.sampled_from([0.0, 1.0, -1.0, 3e38, math.nan, math.inf]))
        filled = torch.full(shape, number).to(kind)
        return to_arrays({"array": filled})["array"]
    data = draw(
        st.one_of(
            st.just(array.data),
            st.integers(0, len(array.data)).map(lambda end: array.data[:end]),
            st.binary(min_size=1, max_size=200).map(lambda more: array.data + more),
            st.tuples(st.integers(0, len(array.data) - 1), st.integers(0, 255)).map(
                lambda change: array.data[: change[0]] + bytes([change[1]]) + array.data[change[0] + 1 :]
            ),
            st.just(PICKLED),
            st.binary(max_size=60),
        )
    )
    return Array(
        dtype=draw(st.one_of(st.just(array.dtype), st.sampled_from(DTYPES))),
        shape=draw(st.one_of(st.just(tuple(array.shape)), st.sampled_from(SHAPES))),
        stype=draw(st.sampled_from([array.stype, array.stype, "other"])),
        data=data,
    )


def change(draw: Any, content: RecordDict) -> None:
    """Change one thing of a reply: a record, a key, or what stands under one."""
    name = draw(st.sampled_from(sorted(content)))
    record = content[name]
    how = draw(st.sampled_from(["drop", "rename", "again", "empty", "other", "more", "key", "value", "value", "value"]))
    if how == "drop":
        del content[name]
    elif how == "rename":
        del content[name]
        content[draw(st.sampled_from(["x", "arrays", "metrics", "config"]))] = record
    elif how == "again":
        content["again"] = record
    elif how == "empty":
        content[name] = type(record)()
    elif how == "other":
        content[name] = draw(st.sampled_from([ConfigRecord({"a": "b"}), MetricRecord({"a": 1}), to_arrays(MODEL)]))
    elif how == "more":
        key, array = draw(st.sampled_from(ADDED)), to_arrays(MODEL)["w"]
        if isinstance(record, ArrayRecord):
            more: Any = _changed_array(draw, array)
        else:
            more = draw(st.sampled_from(ODD_NUMBERS if isinstance(record, MetricRecord) else ODD_TEXTS))
        content[name] = type(record)({**record, key: more})
    elif len(record):
        key = draw(st.sampled_from(sorted(record)))
        values = dict(record)
        if how == "key":
            values[draw(st.sampled_from(["other", "", "x" * 500, "num-examples", "w"]))] = values.pop(key)
        elif isinstance(record, ArrayRecord):
            values[key] = _changed_array(draw, values[key])
        elif isinstance(record, MetricRecord):
            values[key] = draw(st.sampled_from([*ODD_NUMBERS, *ODD_LISTS]))
        else:
            values[key] = draw(st.sampled_from([*ODD_TEXTS, 5, -1, 2**62]))
        content[name] = type(record)(values)


def _check(kind: Kind, data: Any) -> None:
    message = kind.make()
    content = RecordDict(dict(message.content.items()))
    try:
        change(data.draw, content)
    except (TypeError, ValueError):
        return  # Flower's own records do not hold it
    message.content = content
    try:
        found = kind.read(message)
    except RefusedReply as refused:
        assert str(refused).isprintable()  # noqa: PT017 (either way is right)
        return
    assert kind.good(found)


HOW = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("count", [200, pytest.param(1500, marks=pytest.mark.nightly)])
def test_a_changed_reply_is_refused_or_as_good_as_another(name: str, count: int):
    InlineGrid(app, 1, {})  # messages are made for a task of Flower's

    @settings(HOW, max_examples=count)
    @given(data=st.data())
    def check(data: Any) -> None:
        _check(KINDS[name], data)

    check()


def test_a_counter_is_looked_at_too():
    """Nobody reads it, and it may be as large as its sender likes."""
    InlineGrid(app, 1, {})
    reply = KINDS["train"].make()
    assert KINDS["train"].good(_update(reply))
    arrays = dict(reply.content["arrays"])
    arrays["count"] = Array(dtype="int64", shape=(), stype="numpy.ndarray", data=arrays["count"].data + b"\0" * 10_000)
    reply.content["arrays"] = ArrayRecord(arrays)
    with pytest.raises(RefusedReply, match="array count holds 10008 bytes of int64"):
        _update(reply)
