"""Who attacks in a multitask federation: in deployment what nodes say of themselves, which they share in a folder."""

from __future__ import annotations

import numpy as np
import pytest

from thornbed.flower_apps.resolving import resolve
from thornbed.flower_apps.schemes.multitask.nodes import injected, injection, role
from thornbed.flower_apps.settings import BadSettings, Resolved, settings_from

HYBRID = "at2fl(mode='hybrid', iterations=2, balls=1)"


@pytest.fixture
def deployed() -> Resolved:
    return resolve(settings_from({"task": "digit_nodes", "strategy": "mocha", "engine": "deployment"}))


@pytest.fixture
def said(tmp_path):
    return {
        "role": "malicious",
        "attack": HYBRID,
        "accomplices": "1,2,8",
        "targets": "0,1",
        "channel": str(tmp_path / "shared"),
    }


def test_attackers_of_a_deployment_share_what_one_of_them_finds(deployed, said, tmp_path):
    assert injected(deployed, 0, {}, 7) is None
    assert injection(deployed).points == {}
    first = injected(deployed, 1, said, 7)
    [left] = (tmp_path / "shared").glob("*/injection.npz")
    with np.load(left, allow_pickle=False) as stored:
        assert {name for name in stored if name[0] == "x"} == {"x1", "x2", "x8"}
        np.testing.assert_array_equal(stored["x1"], first.x)
    assert len(injected(deployed, 8, said, 7)) > 0
    assert len(list((tmp_path / "shared").iterdir())) == 1
    # Another run of the same nodes has a folder of its own.
    injected(deployed, 8, said, 8)
    assert len(list((tmp_path / "shared").iterdir())) == 2


def test_without_targets_it_is_aimed_at_the_nodes_it_holds(deployed, said):
    direct = {key: value for key, value in said.items() if key not in ("accomplices", "targets")}
    assert len(injected(deployed, 4, {**direct, "attack": "random_direct(ratio=0.1)"}, 1)) > 0
    with pytest.raises(BadSettings, match="node 5 is none of the attackers that share its channel; name all of them"):
        injected(deployed, 5, {**direct, "attack": "random_direct(ratio=0.1)"}, 1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"targets": "0,99"}, r'this attack needs targets="3,7" in --node-config, the nodes whose models are to be'),
        ({"accomplices": "x"}, 'needs accomplices="3,7" in --node-config, the clients that attack together, below 10'),
        ({"channel": ""}, 'attackers that share what they saw need channel="FOLDER"'),
        ({"role": "evil"}, "role in --node-config is benign or malicious, not 'evil'"),
        ({"attack": "none"}, "this node is malicious and there is no attack"),
        ({"attack": "at2fl(mode='direct')"}, "at2fl is direct, so its sources are its targets"),
    ],
)
def test_what_a_node_cannot_say_is_one_sentence(deployed, said, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        injected(deployed, 1, {**said, **change}, 1)


def test_a_node_says_its_role_in_deployment_alone(deployed, said):
    assert role(deployed, 1, said) == "malicious"
    assert role(deployed, 1, {}) == "benign"
    assert role(deployed.model_copy(update={"engine": "inline"}), 1, said) == "benign"
