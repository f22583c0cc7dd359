"""The in-process grid behaves as a wire: copies, errors as replies, no state that leaks."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from thornbed.flower_apps.engines.inline import InlineGrid


@pytest.fixture
def app():
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        count = context.state.config_records.get("count", ConfigRecord({"n": 0}))["n"] + 1
        context.state["count"] = ConfigRecord({"n": count})
        message.content["arrays"]["w"] = Array(np.full(2, 99.0))  # what a client does to what it was given
        message.content["config"]["list"].append(4)
        reply = RecordDict({"metrics": MetricRecord({"count": count, "node": context.node_config["partition-id"]})})
        return Message(reply, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        raise RuntimeError("no evaluation today")

    return app


def content():
    return RecordDict({"arrays": ArrayRecord({"w": Array(np.zeros(2))}), "config": ConfigRecord({"list": [1, 2, 3]})})


def test_a_clients_changes_reach_nobody_else(app):
    grid, sent = InlineGrid(app, 3, {}), content()
    list(grid.send_and_receive([Message(sent, node, "train") for node in grid.get_node_ids()]))
    assert sent["arrays"]["w"].numpy().tolist() == [0.0, 0.0]
    assert sent["config"]["list"] == [1, 2, 3]


def test_replies_come_from_their_nodes_and_state_stays(app):
    grid = InlineGrid(app, 3, {})
    nodes = list(grid.get_node_ids())
    for expected in (1, 2):
        replies = list(grid.send_and_receive([Message(content(), node, "train") for node in nodes]))
        assert [reply.metadata.src_node_id for reply in replies] == nodes
        assert [reply.content["metrics"]["node"] for reply in replies] == [0, 1, 2]
        assert {reply.content["metrics"]["count"] for reply in replies} == {expected}


def test_an_exception_becomes_an_error_reply(app):
    grid = InlineGrid(app, 1, {})
    [reply] = grid.send_and_receive([Message(content(), 2, "evaluate")])
    assert reply.has_error()
    assert "no evaluation today" in reply.error.reason


def test_pushed_messages_are_pulled_once(app):
    grid = InlineGrid(app, 1, {})
    ids = list(grid.push_messages([Message(content(), 2, "train")]))
    assert len(list(grid.pull_messages(ids))) == 1
    assert list(grid.pull_messages(ids)) == []
