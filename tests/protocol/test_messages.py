"""Each message comes through as it was sent, under the names that others rely on, and a request without is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode

from thornbed.flower_apps.client_app import app
from thornbed.flower_apps.engines.inline import InlineGrid
from thornbed.protocol import inference, messages, multitask, split
from thornbed.protocol.messages import RefusedReply
from thornbed.protocol.vector import Layout, to_arrays

ROUND, NODE = 3, 7
SETTINGS = ConfigRecord({"k": 1})
PARAMETERS = {"w": torch.tensor([1.0, 2.0, 3.0])}
IDS = torch.arange(3)


@pytest.fixture(autouse=True)
def _task_of_flowers():
    InlineGrid(app, 1, {})  # messages are made for a task of Flower's


def _arrays() -> ArrayRecord:
    return to_arrays(PARAMETERS)


def _train() -> Message:
    return messages.train_message(_arrays(), SETTINGS, ROUND, NODE, 2)


def _node(**other: Any) -> Message:
    asked = {"weights": np.array([1.0, 2.0]), "curvature": 0.5, "passes": 1.5, "held_round": 2, "server_round": ROUND}
    return multitask.node_message(multitask.NodeRequest(**asked | other), SETTINGS, NODE)


def _rows(new: bool = True) -> Message:
    return split.rows_message(ROUND, SETTINGS, NODE, new=new)


def _step(gradient: torch.Tensor | None = None) -> Message:
    return split.step_message(split.StepRequest(ROUND, 4, IDS, gradient), SETTINGS, NODE)


def _evaluation(gradient: torch.Tensor | None = None) -> Message:
    asked = split.EvaluationRequest(ROUND, IDS, IDS[:2], IDS[:1], gradient)
    return split.evaluation_message(asked, SETTINGS, NODE)


def _embed() -> Message:
    return inference.embed_message(inference.EmbedRequest("test", IDS, ROUND), SETTINGS, NODE)


@pytest.mark.parametrize(
    ("asked", "action", "group"),
    [
        (_train, "train", "3"),
        (_node, "train.mocha", "3"),
        (_rows, "query.rows", "3"),
        (_step, "train.split", "3.4"),
        (_evaluation, "evaluate.split", "3"),
        (_embed, "query.embed", "3"),
        (lambda: messages.identify_message(NODE), "query.identify", "identify"),
    ],
)
def test_a_request_goes_to_its_node_and_says_its_action_and_its_round(asked: Callable, action: str, group: str):
    message = asked()
    assert message.metadata.message_type == action
    assert (message.metadata.dst_node_id, message.metadata.group_id) == (NODE, group)
    if action != "query.identify":
        config = message.content["config"]
        assert (config["k"], config["server-round"]) == (1, ROUND)


def test_a_training_request_comes_through():
    arrays, server_round = messages.read_request(_train())
    assert (arrays["w"].numpy().tolist(), server_round) == ([1.0, 2.0, 3.0], ROUND)
    assert messages.last_round_of(_train()) == 2
    assert messages.last_round_of(messages.train_message(_arrays(), SETTINGS, 1, NODE)) == 0


def test_what_flowers_own_strategies_ask_says_no_last_round_and_perhaps_no_round():
    for content, told in (
        (RecordDict({"a": _arrays()}), 0),
        (RecordDict({"a": _arrays(), "c": ConfigRecord({"server-round": 5})}), 5),
    ):
        message = Message(content=content, dst_node_id=NODE, message_type="train")
        assert messages.read_request(message)[1] == told
        assert messages.last_round_of(message) == 0


def test_a_training_reply_comes_through_with_the_figures_of_defenses_and_attacks():
    sent = messages.train_reply(_train(), _arrays(), 9, 0.25, {"masked": 0.5}, {"stealth": 2.0})
    assert dict(sent.content["metrics"]) == {
        "num-examples": 9,
        "train-loss": 0.25,
        "defense-masked": 0.5,
        "attack-stealth": 2.0,
    }
    bare = messages.train_reply(_train(), _arrays(), 9, 0.25)
    assert dict(bare.content["metrics"]) == {"num-examples": 9, "train-loss": 0.25}
    update = torch.zeros(3)
    found = messages.read_train_reply(sent, Layout.of(_arrays()), torch.tensor([0.5, 0.0, 3.0]), update)
    assert update.tolist() == [0.5, 2.0, 0.0]
    assert (found.num_examples, found.metrics["defense-masked"]) == (9.0, 0.5)


@pytest.mark.parametrize("count", [1, 0.5, 2**53])
def test_a_number_of_examples_above_zero_and_up_to_2_to_the_53_is_taken(count: float):
    sent = messages.train_reply(_train(), _arrays(), count, 0.0)  # type: ignore[arg-type]
    found = messages.read_train_reply(sent, Layout.of(_arrays()), torch.zeros(3), torch.zeros(3))
    assert found.num_examples == count


@pytest.mark.parametrize("count", [0, -1, 2**53 + 1, math.inf, math.nan, "9", [9]])
def test_any_other_number_of_examples_is_refused(count: object):
    metrics = ConfigRecord if isinstance(count, str) else MetricRecord
    records = {"arrays": _arrays(), "metrics": metrics({"num-examples": count})}
    with pytest.raises(RefusedReply, match=r"num-examples|0 metric records"):
        messages.read_train_reply(
            Message(RecordDict(records), reply_to=_train()), Layout.of(_arrays()), torch.zeros(3), torch.zeros(3)
        )


def test_an_update_that_overflows_is_refused_without_a_warning(recwarn):
    sent = messages.train_reply(_train(), to_arrays({"w": torch.full((3,), 3e38)}), 9, 0.0)
    with pytest.raises(RefusedReply, match=r"^values that are not finite$"):
        messages.read_train_reply(sent, Layout.of(_arrays()), torch.full((3,), -3e38), torch.zeros(3))
    assert not recwarn.list


def test_an_evaluation_reply_has_flowers_names():
    sent = messages.evaluate_reply(_train(), 0.5, 0.75, 4)
    assert dict(sent.content["metrics"]) == {"loss": 0.5, "accuracy": 0.75, "num-examples": 4}
    assert list(sent.content) == ["metrics"]


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("Traceback\n  line 3\nValueError: it fell over\n", "ValueError: it fell over"),
        ("", "no reason given"),
        (" \n ", "no reason given"),
    ],
)
def test_an_error_is_refused_with_its_code_and_the_last_line_of_its_reason(reason: str, said: str):
    code = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    with pytest.raises(RefusedReply) as refused:
        messages.refuse_error(Message(Error(code, reason), reply_to=_train()))
    assert str(refused.value) == f"error {code}: {said}"


def test_a_reason_is_printable_and_has_at_most_200_characters():
    assert str(RefusedReply("a\tb" + "c" * 300)) == "a b" + "c" * 197


@pytest.mark.parametrize("helped", [False, True])
def test_a_node_is_asked_and_answers(helped: bool):
    held = np.array([3.0, 4.0]) if helped else None
    asked = _node(held=held)
    found = multitask.read_node_request(asked)
    assert (found.curvature, found.passes, found.held_round, found.server_round) == (0.5, 1.5, 2, ROUND)
    assert found.weights.tolist() == [1.0, 2.0]
    assert (None if found.held is None else found.held.tolist()) == ([3.0, 4.0] if helped else None)
    sum_of_duals = np.array([5.0, 6.0])
    figures: dict[str, Any] = {"conjugate": 0.1, "loss": 0.2, "num_points": 8, "defense": {"gone": 1.0}}
    sent = multitask.node_reply(asked, sum_of_duals, **figures)
    assert dict(sent.content["metrics"]) == {
        "num-examples": 8,
        "train-loss": 0.2,
        "conjugate": 0.1,
        "defense-gone": 1.0,
    }
    answer = multitask.read_node_reply(sent, 2)
    assert (answer.v.tolist(), answer.conjugate, answer.loss, answer.num_points) == ([5.0, 6.0], 0.1, 0.2, 8)
    assert answer.metrics["defense-gone"] == 1.0
    assert answer.anew is False
    began = multitask.node_reply(asked, sum_of_duals, **figures, anew=True)
    assert began.content["metrics"]["began-anew"] == 1
    assert multitask.read_node_reply(began, 2).anew is True


@pytest.mark.parametrize("new", [False, True])
def test_a_client_is_asked_for_its_rows_and_answers(new: bool):
    assert split.read_rows_request(_rows(new)) == (ROUND, new)
    held = split.read_rows_reply(split.rows_reply(_rows(), split.Held(IDS, IDS + 5)))
    assert (held.train.tolist(), held.test.tolist()) == ([0, 1, 2], [5, 6, 7])


@pytest.mark.parametrize("bad", [torch.zeros(3), IDS[None], None])
@pytest.mark.parametrize("name", ["train", "test"])
def test_rows_that_are_no_vector_of_ids_are_refused(name: str, bad: torch.Tensor | None):
    arrays = {"train": IDS, "test": IDS, name: bad}
    record = to_arrays({each: tensor for each, tensor in arrays.items() if tensor is not None})
    with pytest.raises(RefusedReply, match=rf"^no vector of int64 called {name}$"):
        split.read_rows_reply(Message(RecordDict({"arrays": record}), reply_to=_rows()))


@pytest.mark.parametrize("gradient", [None, torch.ones(3, 2)])
def test_a_step_and_an_evaluation_come_through(gradient: torch.Tensor | None):
    step = split.read_step(_step(gradient))
    assert (step.server_round, step.step, step.rows.tolist()) == (ROUND, 4, [0, 1, 2])
    found = split.read_evaluation(_evaluation(gradient))
    assert (found.server_round, found.rows.tolist()) == (ROUND, [0, 1, 2])
    assert (found.attacked.tolist(), found.probe.tolist()) == ([0, 1], [0])
    for each in (step, found):
        assert (each.gradient is None) == (gradient is None)
        assert gradient is None or torch.equal(each.gradient, gradient)


def test_finite_embeddings_whose_sum_overflows_float32_are_taken():
    sent = split.embeddings_reply(_step(), {"embeddings": torch.full((3, 2), 3e38)})
    assert split.read_embeddings(sent, {"embeddings": 3}, 2)["embeddings"].isfinite().all()


def test_a_reply_of_inference_says_how_many_rows_it_answers():
    for embeddings, count in ((torch.zeros(3, 2), 3), (None, 0)):
        assert dict(inference.embed_reply(_embed(), embeddings).content["metrics"]) == {"num-examples": count}


@pytest.mark.parametrize(
    ("read", "asked"),
    [
        (multitask.read_node_request, _node),
        (split.read_rows_request, _rows),
        (split.read_step, _step),
        (split.read_evaluation, _evaluation),
        (inference.read_embed_request, _embed),
    ],
)
def test_a_request_without_its_settings_is_refused(read: Callable, asked: Callable):
    message = asked()
    del message.content["config"]
    with pytest.raises(RefusedReply, match=r"^0 config records instead of one$"):
        read(message)


def _train_reply(message: Message) -> Any:
    return messages.read_train_reply(message, Layout.of(_arrays()), torch.zeros(3), torch.zeros(3))


@pytest.mark.parametrize(
    ("read", "sent", "kind"),
    [
        (_train_reply, lambda: messages.train_reply(_train(), _arrays(), 9, 0.0), "metric"),
        (_train_reply, lambda: messages.train_reply(_train(), _arrays(), 9, 0.0), "array"),
        (messages.read_request, _train, "array"),
        (multitask.read_node_request, _node, "array"),
        (split.read_step, _step, "array"),
        (split.read_evaluation, _evaluation, "array"),
        (split.read_rows_reply, lambda: split.rows_reply(_rows(), split.Held(IDS, IDS)), "array"),
        (
            lambda message: split.read_embeddings(message, {}, 2),
            lambda: split.embeddings_reply(_step(), {"embeddings": torch.zeros(1, 2)}),
            "array",
        ),
    ],
)
def test_a_message_without_one_of_its_records_and_with_two_is_refused(read: Callable, sent: Callable, kind: str):
    message = sent()
    name = {"metric": "metrics", "array": "arrays"}[kind]
    record = message.content[name]
    del message.content[name]
    with pytest.raises(RefusedReply, match=rf"^0 {kind} records instead of one$"):
        read(message)
    message.content[name] = record
    message.content["again"] = record
    with pytest.raises(RefusedReply, match=rf"^2 {kind} records instead of one$"):
        read(message)


def test_an_answer_of_a_node_without_arrays_is_refused():
    sent = multitask.node_reply(_node(), np.zeros(2), conjugate=0.0, loss=0.0, num_points=1, defense={})
    del sent.content["arrays"]
    with pytest.raises(RefusedReply, match=r"^0 array records instead of one$"):
        multitask.read_node_reply(sent, 2)
