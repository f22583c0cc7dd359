"""Nodes that play the client they are told: none is asked, the same one all run long, and never in deployment."""

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from tests.conftest import read_lines
from thornbed.flower_apps import server_app
from thornbed.flower_apps.client_app import app
from thornbed.flower_apps.engines.inline import InlineGrid
from thornbed.flower_apps.federation import conduct
from thornbed.flower_apps.resolving import resolve
from thornbed.flower_apps.settings import settings_from
from thornbed.protocol.actions import IDENTIFY
from thornbed.protocol.messages import identify_message, read_identity
from thornbed.protocol.played import PLAYED, play, take_played
from thornbed.strategies import NumberedClients, VirtualNodes

MOCHA = {"task": "digit_nodes", "strategy": "mocha", "rounds": 3}
KEYS = {
    "fedavg": {"num-clients": 6, "clients-per-round": 3, "rounds": 3, "model": "mlp(hidden=(8,))", "partition": "iid",
               "attack": "sign_flip", "num-malicious": 2},
    "mocha": MOCHA,
    "split_nn": {"strategy": "split_nn", "num-clients": 2, "rounds": 1},
}  # fmt: skip


class Counting(InlineGrid):
    """Counts what is asked of each node, by message type; the node's own partition-id is another than it is to play."""

    def __init__(self, client_app, num_nodes, run_config):
        super().__init__(client_app, num_nodes, run_config)
        self.asked = []
        for node, context in self._contexts.items():
            context.node_config = {"partition-id": num_nodes - 1 - (node - 2), "num-partitions": num_nodes}

    def push_messages(self, messages):
        messages = list(messages)
        self.asked += [(message.metadata.message_type, message.metadata.dst_node_id) for message in messages]
        return super().push_messages(messages)


def bytes_of(folder):
    return [path.read_bytes() for path in sorted(folder.glob("model.*"))]


@pytest.mark.parametrize("keys", KEYS.values(), ids=list(KEYS))
def test_a_simulation_asks_nobody_and_has_the_bytes_of_inline(tmp_path, monkeypatch, keys):
    plain = resolve(settings_from({**keys, "output": str(tmp_path / "inline")}))
    conduct(plain, InlineGrid(app, plain.num_clients, plain.to_run_config()))
    told = plain.model_copy(update={"output": str(tmp_path / "told"), "engine": "simulation"})
    grid = Counting(app, told.num_clients, told.to_run_config())
    monkeypatch.setattr(server_app, "InMemoryGrid", InlineGrid)
    server_app.main(grid, type("Context", (), {"run_config": told.to_run_config()}))
    assert grid.asked
    assert IDENTIFY not in {action for action, _ in grid.asked}
    one, other = ([line.get("sampled") for line in read_lines(tmp_path / name)] for name in ("inline", "told"))
    assert one == other
    assert bytes_of(tmp_path / "inline") == bytes_of(tmp_path / "told") != []


def test_only_those_that_are_drawn_hear_of_a_round(tmp_path, monkeypatch):
    keys = {**KEYS["fedavg"], "num-clients": 50, "rounds": 1, "engine": "simulation", "output": str(tmp_path / "run")}
    settings = resolve(settings_from(keys))
    grid = Counting(app, 50, settings.to_run_config())
    monkeypatch.setattr(server_app, "InMemoryGrid", InlineGrid)
    server_app.main(grid, type("Context", (), {"run_config": settings.to_run_config()}))
    assert len(grid.asked) == 3


def test_a_node_plays_one_client_all_run_long(federation):
    plain = federation([lambda model: (model, {"num-examples": 1})] * 5)
    late = plain._contexts.pop(6)
    grid, cohort = VirtualNodes(plain), NumberedClients(5, 5, min_clients=4, wait_seconds=0.1)
    assert [member.node_id for member in cohort.draw(1, grid)] == [2, 3, 4, 5, None]
    away = plain._contexts.pop(3)
    plain._contexts[6] = late
    assert [member.node_id for member in cohort.draw(2, grid)] == [2, None, 4, 5, 6]
    plain._contexts[3] = away
    assert [member.node_id for member in cohort.draw(3, grid)] == [2, 3, 4, 5, 6]


def test_of_more_nodes_than_clients_some_take_no_part(federation):
    grid = VirtualNodes(federation([lambda model: (model, {"num-examples": 1})] * 3))
    assert [member.node_id for member in NumberedClients(2, 2).draw(1, grid)] == [2, 3]


def test_a_node_of_a_deployment_stays_who_it_is():
    """Whoever sends a message must not choose there whose data and whose state a node works with."""
    keys = settings_from({"num-clients": 3, "engine": "deployment", "superlink": "127.0.0.1:1"})
    grid = InlineGrid(app, 3, resolve(keys).to_run_config())
    [reply] = grid.send_and_receive([played(identify_message(2), 1)])
    assert read_identity(reply).partition_id == 0
    simulated = InlineGrid(app, 3, resolve(settings_from({"num-clients": 3})).to_run_config())
    [reply] = simulated.send_and_receive([played(identify_message(2), 1)])
    assert read_identity(reply).partition_id == 1


def played(message, client):
    play(message, client)
    return message


def test_messages_that_share_their_records_name_their_own_clients():
    content = RecordDict({"config": ConfigRecord({"lr": 0.1})})
    messages = [Message(content, dst_node_id=node, message_type="train") for node in (2, 3)]
    for client, message in enumerate(messages):
        play(message, client)
    assert list(content) == ["config"]
    assert [take_played(message) for message in messages] == [0, 1]
    assert [list(message.content) for message in messages] == [["config"], ["config"]]
    assert take_played(messages[0]) is None


@pytest.mark.parametrize("client", [-1, True, "1", 0.0])
def test_a_message_that_names_no_client_is_refused(client):
    message = Message(RecordDict({PLAYED: ConfigRecord({"client": client})}), dst_node_id=2, message_type="train")
    with pytest.raises(ValueError, match="names no client to play"):
        take_played(message)
