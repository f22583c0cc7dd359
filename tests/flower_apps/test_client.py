"""What a node's own settings have to be."""

import pytest
import torch
from flwr.app import Context, RecordDict

from thornbed.flower_apps.resolving import resolve
from thornbed.flower_apps.run.client import Client, attack_text
from thornbed.flower_apps.run.run import Run
from thornbed.flower_apps.settings import settings_from
from thornbed.protocol.client_state import LostState


def client(**node_config):
    node_config = {key.replace("_", "-"): value for key, value in node_config.items()}
    context = Context(run_id=1, node_id=2, node_config=node_config, state=RecordDict(), run_config={})
    return Client.of(Run(resolve(settings_from({"task": "digits"}))), context)


def test_a_node_is_the_client_of_its_partition_id():
    assert [client(partition_id=number).number for number in (0, 7)] == [0, 7]


@pytest.mark.parametrize("wrong", [True, False, -1, 1.0, "0"])
def test_a_partition_id_that_is_none_is_refused_with_what_would_be_one(wrong):
    with pytest.raises(ValueError, match=rf"whole number from 0, such as 'partition-id=0': this node's is {wrong!r}$"):
        client(partition_id=wrong)


def test_a_node_without_a_partition_id_is_told_how_to_give_one():
    with pytest.raises(ValueError, match="this node has no partition-id; give it one in --node-config"):
        client()


def test_an_attack_that_a_node_names_has_the_options_of_its_task():
    flags = {"task": "har", "strategy": "mocha", "engine": "deployment", "superlink": "h:1"}
    run = resolve(settings_from(flags))
    text = attack_text(run, {"attack": "at2fl(balls=3)"})
    assert text == "at2fl(balls=3, iterations=20, start='clean')"


def test_on_a_node_that_outlives_a_run_what_a_client_keeps_is_of_the_run(tmp_path):
    def state(output, run_id):
        settings = settings_from({"task": "digits", "engine": "deployment", "superlink": "h:1", "output": output})
        context = Context(run_id, 2, {"partition-id": 0, "state": str(tmp_path)}, RecordDict(), {})
        return Client.of(Run(resolve(settings)), context).state

    state("runs/first", 1).save(2, {"w": torch.ones(1)})
    assert state("runs/first", 2).load(2)["w"].item() == 1  # resumed, it is another run of Flower's
    state("runs/second", 3).save(2, {"w": torch.zeros(1)})
    with pytest.raises(LostState, match="is another run's"):
        state("runs/first", 4).load(2)
