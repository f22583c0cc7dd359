"""Who holds a client, in whole runs: what is recorded of a node that took another's place, and what stops a run."""

from dataclasses import replace

from tests.conftest import read_lines
from thornbed.flower_apps.client_app import app
from thornbed.flower_apps.config import settings_from
from thornbed.flower_apps.engines.inline import InlineGrid
from thornbed.flower_apps.federation import conduct
from thornbed.flower_apps.resolving import resolve
from thornbed.protocol.actions import IDENTIFY, TRAIN
from thornbed.protocol.messages import Identity, identify_reply

NEWCOMER = 2**63 + 1  # node ids have 64 bits


class Restarting(InlineGrid):
    """Node 2 is joined by a newcomer with its number in round 2, and is gone from round 4 on."""

    server_round = 0

    def push_messages(self, messages):
        messages = list(messages)
        if any(message.metadata.message_type == TRAIN for message in messages):
            self.server_round = int(messages[0].metadata.group_id)
        return super().push_messages(messages)

    def get_node_ids(self):
        coming = self.server_round + 1  # who is there is asked before anything of that round is sent
        if coming == 2 and NEWCOMER not in self._contexts:
            self._contexts[NEWCOMER] = replace(self._contexts[2], node_id=NEWCOMER)
        if coming == 4:
            self._contexts.pop(2, None)
        return super().get_node_ids()


def test_a_replacement_is_in_the_line_of_its_round_and_changes_nothing_else(tmp_path):
    words = {"task": "digits", "model": "mlp(hidden=(8,))", "num-clients": 3, "rounds": 5, "partition": "iid"}
    lines = {}
    for grid in (InlineGrid, Restarting):
        settings = resolve(settings_from({**words, "output": str(tmp_path / grid.__name__)}))
        conduct(settings, grid(app, settings.num_clients, settings.to_run_config()))
        lines[grid] = read_lines(tmp_path / grid.__name__)
    there = [line.pop("replaced", None) for line in lines[Restarting]]
    assert there == [None, None, None, None, [{"client": 0, "node": "2", "by": str(NEWCOMER)}], None]
    for one, other in zip(lines[InlineGrid], lines[Restarting], strict=True):
        assert {k: v for k, v in one.items() if "seconds" not in k} == {
            k: v for k, v in other.items() if "seconds" not in k
        }


def test_a_run_with_an_attacker_that_cannot_attack_ends_before_its_first_round(thornbed, tmp_path, monkeypatch):
    def crippled(message, context):
        if message.metadata.message_type == IDENTIFY and context.node_id == 3:
            return identify_reply(message, Identity(1, "backdoor", "it has no channel"))
        return app(message, context)

    monkeypatch.setattr("flower_apps.engines.inline.app", crippled)
    words = ["--task", "digits", "--model", "mlp(hidden=(8,))", "--num-clients", 3, "--rounds", 2]
    typed = thornbed("run", *words, "--output", tmp_path / "run")
    assert typed.code == 1
    assert "client 1 cannot attack: it has no channel" in typed.sentence
    assert "Traceback" not in typed.err
    assert [line["round"] for line in read_lines(tmp_path / "run")] == [0]
