"""A run of vertical learning: what is built once, and which roles nodes of a deployment can play."""

from __future__ import annotations

import pytest

from thornbed.attacks import Knowledge
from thornbed.clients.vfl import BackdoorClient, EmbeddingClient
from thornbed.flower_apps.client_app import app
from thornbed.flower_apps.engines.inline import InlineGrid
from thornbed.flower_apps.resolving import resolve
from thornbed.flower_apps.run.client import Client
from thornbed.flower_apps.schemes.scheme import built
from thornbed.flower_apps.schemes.vertical.scheme import SCHEME
from thornbed.flower_apps.settings import plugins, settings_from
from thornbed.protocol.client_state import ClientState, LivingMemory
from thornbed.protocol.messages import identify_message, read_identity

COOPERATIVE = "cooperative_backdoor(size=(3, 3), num_known=120)"


def made(**values):
    small = {"task": "digits(num_train=300)", "strategy": "split_nn(embedding_size=8)", "num_clients": 4}
    return resolve(settings_from({**small, **values}))


def client(number, **node_config):
    return Client(number, {"partition-id": number, **node_config}, ClientState(number, LivingMemory(), None), 1)


def identity(settings, node_config):
    """Return what a node of client 3 says of itself."""
    grid = InlineGrid(app, settings.num_clients, settings.to_run_config())
    grid._contexts[5].node_config.update(node_config)
    [reply] = grid.send_and_receive([identify_message(5)])
    return read_identity(reply)


@pytest.mark.parametrize(
    ("node_config", "problem"),
    [
        ({"attack": "none"}, "this node is malicious and there is no attack: name one in --node-config or in the run"),
        ({"channel": ""}, 'attackers that share what they saw need channel="FOLDER" in --node-config'),
        ({"accomplices": ""}, 'this attack needs accomplices="3,7" in --node-config, the clients that attack together'),
        ({"accomplices": "2,9"}, 'this attack needs accomplices="3,7" in --node-config, the clients that attack'),
        ({"attack": "badvfl + villain"}, "--attack takes one attack of vertical learning, not 2 joined by +"),
        ({"attack": "pixel_trigger"}, "attack pixel_trigger in --node-config is none of vertical learning"),
        ({"attack": "vilain"}, "there is no attack called vilain; did you mean villain?"),
        ({"attack": "badvfl(budget=2.0)"}, "badvfl needs 0 <= budget <= 1"),
        ({"attack": "cooperative_backdoor(graph='file')"}, 'graph = "file" needs a graph_file'),
    ],
)
def test_a_malicious_node_that_cannot_attack_says_why(tmp_path, node_config, problem):
    settings = made(engine="deployment", superlink="127.0.0.1:1", attack=COOPERATIVE)
    able = {"role": "malicious", "accomplices": "2,3", "channel": str(tmp_path)}
    assert identity(settings, able).problem == ""
    assert identity(settings, able).role == BackdoorClient.name
    assert problem in identity(settings, {**able, **node_config}).problem
    honest = identity(settings, {**node_config, "role": "benign"})
    assert (honest.role, honest.problem) == (EmbeddingClient.name, "")


def test_a_node_whose_own_attack_must_know_more_than_a_node_can_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("thornbed.attacks.vertical.villain.NEEDS", frozenset({Knowledge.TRUE_LABELS}))
    node = {"role": "malicious", "accomplices": "2,3", "channel": str(tmp_path), "attack": "villain"}
    said = identity(made(engine="deployment", superlink="127.0.0.1:1", attack=COOPERATIVE), node).problem
    assert said.startswith(f"attack villain must know {Knowledge.TRUE_LABELS}, which a malicious client does not learn")


def test_roles_follow_the_settings_where_one_machine_plays_all_clients(tmp_path):
    run = built(made(attack=COOPERATIVE, num_malicious=2, output=str(tmp_path)))
    assert [SCHEME.role(run, client(number)) for number in range(4)] == ["benign", "benign", "malicious", "malicious"]


def test_plug_ins_are_built_once_for_all_messages_of_a_run(tmp_path, monkeypatch):
    loaded, load = [], plugins.load

    def counted(kind, text, base=None):
        loaded.append(kind)
        return load(kind, text, base)

    monkeypatch.setattr(plugins, "load", counted)
    defense = "gradient_noise + embedding_clipping"
    settings = made(attack=COOPERATIVE, num_malicious=2, defense=defense, output=str(tmp_path))
    run = SCHEME.run(settings)
    SCHEME.check(run, True)
    SCHEME.learn(run)
    for number in range(4):
        for _ in range(2):
            run.embedding_client(client(number))
    counts = {kind: loaded.count(kind) for kind in ("attack", "defense", "strategy", "optimizer")}
    assert counts == {"attack": 1, "defense": 2, "strategy": 1, "optimizer": 1}
    sides = [run.embedding_client(client(number)).collusion for number in (2, 3, 2)]
    assert sides[0] is sides[2]
    assert all(side.attack is run.attack for side in sides)


def test_a_node_attacks_as_it_says_itself(tmp_path):
    run = built(made(engine="deployment", superlink="127.0.0.1:1", attack=COOPERATIVE))
    node = {"role": "malicious", "accomplices": "2", "channel": str(tmp_path), "attack": "villain(num_known=50)"}
    own = run.embedding_client(client(3, **node))
    assert own.collusion.attack.name == "villain"
    assert len(own.collusion.known) == 50
    assert sorted(own.collusion.blocks) == [2, 3]
