"""Who attacks in a multitask federation: in deployment what nodes say of themselves, which they share in a folder."""

from __future__ import annotations

import pytest
import torch

from thornbed.flower_apps.resolving import resolve
from thornbed.flower_apps.run.client import Client
from thornbed.flower_apps.schemes.multitask.handlers import injected
from thornbed.flower_apps.schemes.multitask.run import MultitaskRun
from thornbed.flower_apps.schemes.multitask.scheme import SCHEME
from thornbed.flower_apps.settings import BadSettings, settings_from
from thornbed.protocol.client_state import ClientState, LivingMemory
from thornbed.protocol.tensor_files import load_tensors

HYBRID = "at2fl(mode='hybrid', iterations=2, balls=1)"


@pytest.fixture
def deployed():
    return MultitaskRun(resolve(settings_from({"task": "digit_nodes", "strategy": "mocha", "engine": "deployment"})))


@pytest.fixture
def said(tmp_path):
    return {
        "role": "malicious",
        "attack": HYBRID,
        "accomplices": "1,2,8",
        "targets": "0,1",
        "channel": str(tmp_path / "shared"),
    }


def node(number, said, run_id=1):
    return Client(number, said, ClientState(number, LivingMemory(), None), run_id)


def test_attackers_of_a_deployment_share_what_one_of_them_finds(deployed, said, tmp_path):
    assert injected(deployed, node(0, {}, 7)) is None
    assert deployed.injection.points == {}
    first = injected(deployed, node(1, said, 7))
    [left] = (tmp_path / "shared").glob("*/injection.safetensors")
    stored, _ = load_tensors(left)
    assert {name for name in stored if name[0] == "x"} == {"x1", "x2", "x8"}
    assert torch.equal(stored["x1"], torch.from_numpy(first.x))
    assert len(injected(deployed, node(8, said, 7))) > 0
    assert len(list((tmp_path / "shared").iterdir())) == 1
    # Another run of the same nodes has a folder of its own.
    injected(deployed, node(8, said, 8))
    assert len(list((tmp_path / "shared").iterdir())) == 2


def test_without_targets_it_is_aimed_at_the_nodes_it_holds(deployed, said):
    alone = {key: value for key, value in said.items() if key not in ("accomplices", "targets")}
    direct = {**alone, "attack": "random_direct(ratio=0.1)"}
    assert len(injected(deployed, node(4, direct))) > 0
    with pytest.raises(BadSettings, match="5 is none of the attackers that share its channel; name all of them"):
        injected(deployed, node(5, direct))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"targets": "0,99"}, r'this attack needs targets="3,7" in --node-config, the clients whose models are to be'),
        ({"accomplices": "x"}, 'needs accomplices="3,7" in --node-config, the clients that attack together, below 10'),
        ({"channel": ""}, 'attackers that share what they saw need channel="FOLDER"'),
        ({"role": "evil"}, "role in --node-config is benign or malicious, not 'evil'"),
        ({"attack": "none"}, "this node is malicious and there is no attack"),
        ({"attack": "at2fl(mode='direct')"}, "at2fl is direct, so its sources are its targets"),
        ({"attack": "pixel_trigger"}, "attack pixel_trigger does not go with --strategy mocha, which takes "),
        ({"attack": "nonsense"}, "nonsense"),
    ],
)
def test_what_a_node_cannot_say_is_one_sentence_before_the_first_round(deployed, said, change, sentence):
    with pytest.raises(BadSettings, match=sentence):
        SCHEME.role(deployed, node(1, {**said, **change}))


def test_a_node_says_its_role_in_deployment_alone(deployed, said):
    assert SCHEME.role(deployed, node(1, said)) == "malicious"
    assert SCHEME.role(deployed, node(1, {})) == "benign"
    inline = MultitaskRun(deployed.settings.model_copy(update={"engine": "inline"}))
    assert SCHEME.role(inline, node(1, said)) == "benign"
