"""An agent on a machine of its own: the network it kept of a SplitNN run, and what it can do alone."""

from __future__ import annotations

import pytest
import torch
from flwr.app import ConfigRecord
from flwr.supercore.task_identity import TaskIdentity

from thornbed.flower_apps.resolving import resolve
from thornbed.flower_apps.run.kept_networks import keep, last_kept
from thornbed.flower_apps.schemes.inference.agents import extractor, part
from thornbed.flower_apps.schemes.inference.replies import answer, own_extractor
from thornbed.flower_apps.settings import BadSettings, Resolved, settings_from
from thornbed.protocol.inference import EmbedRequest, embed_message, read_embed_reply
from thornbed.protocol.messages import RefusedReply
from thornbed.tasks.split.kept_state import MODEL

AGENT, ROWS = 2, torch.tensor([3, 0, 7])


def made(**values: object) -> Resolved:
    said = {"task": "digits", "strategy": "collaborative_inference(embedding_size=6)", "num_clients": 4}
    return resolve(settings_from({**said, "engine": "deployment", **values}))


@pytest.fixture
def kept(tmp_path):
    """The folder of an agent that has finished two rounds of SplitNN, and its network of the second."""
    for server_round in (1, 2):
        network = extractor(made(seed=server_round), AGENT)
        state = {f"{MODEL}{name}": tensor for name, tensor in network.state_dict().items()}
        keep(tmp_path, AGENT, server_round, {**state, "optimizer.step": torch.tensor(3.0)})
    return tmp_path, network.eval()


def sent(settings, server_round, node_config):
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    message = embed_message(EmbedRequest("test", ROWS, server_round), ConfigRecord(), node_id=5)
    message.metadata.__dict__["_message_id"] = "1"
    return read_embed_reply(answer(settings, AGENT, message, node_config), (len(ROWS), 6), finite=True)


def test_an_agent_embeds_with_what_it_kept_last(kept):
    folder, network = kept
    with torch.no_grad():
        expected = network(part(made(), "test", AGENT)[ROWS])
    assert torch.equal(sent(made(), 2, {"state": str(folder)}), expected)


def test_a_new_run_in_the_same_folder_takes_the_place_of_the_earlier_one(kept):
    folder, _ = kept
    keep(folder, AGENT + 20, 7, {"weight": torch.ones(1)})  # of another client
    for server_round in (3, 4, 5, 1):
        keep(folder, AGENT, server_round, {"weight": torch.full((1,), float(server_round))})
    assert {path.name for path in folder.iterdir()} == {
        f"{AGENT}-round-1.safetensors",
        f"{AGENT + 20}-round-7.safetensors",
    }
    keep(folder, AGENT, 4, {"weight": torch.ones(1)})  # it missed the end of two rounds
    assert (last_kept(folder, AGENT), last_kept(folder, AGENT, before=4)) == (4, 1)


def test_a_malicious_agent_lies_from_the_attacked_round_on_and_as_the_node_says(kept):
    settings = made(attack="feature_flip(amplification=2)")
    honest = {"state": str(kept[0])}
    malicious = {**honest, "role": "malicious"}
    truth = sent(settings, 3, honest)
    assert torch.equal(sent(settings, 2, malicious), truth)
    torch.testing.assert_close(sent(settings, 3, malicious), -2 * truth)
    torch.testing.assert_close(sent(made(), 3, {**malicious, "attack": "feature_flip(amplification=5)"}), -5 * truth)
    several = "missing(agents=(1,)) + feature_flip(amplification=3, agents=(2,))"
    torch.testing.assert_close(sent(settings, 3, {**malicious, "attack": several}), -3 * truth)
    with pytest.raises(RefusedReply, match="it sent nothing"):
        sent(settings, 3, {**malicious, "attack": "missing"})


@pytest.mark.parametrize(
    ("attack", "sentence"),
    [
        ("none", "agent 2 is malicious and has no part in the attack none; name one in --node-config or in the run"),
        ("missing(agents=(1,))", r"has no part in the attack missing\(agents=\(1,\)\)"),
        ("missing + feature_flip", "of several parts says which agents carry out each"),
        ("missing(agents=2)", r"takes numbers of agents, as in missing\(agents=\(6, 9\)\); missing says 2"),
        ("label_flip", "attack label_flip in --node-config is none of collaborative inference"),
        ("targeted_pgd", "attack targeted_pgd must know .*other.* which a malicious client does not learn here"),
    ],
)
def test_an_attack_that_an_agent_cannot_make_alone_is_refused(kept, attack, sentence):
    with pytest.raises(BadSettings, match=sentence):
        sent(made(), 3, {"state": str(kept[0]), "role": "malicious", "attack": attack})


def test_an_agent_without_a_network_that_fits_says_so(kept, tmp_path):
    with pytest.raises(BadSettings, match='needs state="FOLDER" in --node-config'):
        own_extractor(made(), AGENT, {})
    with pytest.raises(BadSettings, match=f"agent 1 kept no network of a run of split_nn in {tmp_path}"):
        own_extractor(made(), 1, {"state": str(tmp_path)})
    other = made(strategy="collaborative_inference(embedding_size=7)")
    with pytest.raises(BadSettings, match=r"kept a network of other .* is \(6, \d+\) instead of \(7, \d+\) \("):
        own_extractor(other, AGENT, {"state": str(tmp_path)})


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--attack", "untargeted_pgd"), "attack untargeted_pgd must know"),
        (("--attack", "feature_flip(agents='x')"), "takes numbers of agents, as in feature_flip(agents=(6, 9))"),
        (("--attack", "feature_flip(agents=(1, 99))"), "--attack names agent 99; agents are 0 to 9"),
        (("--attack", "feature_flip(agents=(-1, 2))"), "--attack names agent -1; agents are 0 to 9"),
        (("--attack", "missing + feature_flip"), "of several parts says which agents carry out each"),
        (("--attack", "missing(agents=(1,)) + feature_flip(agents=(1,))"), "agent 1 is given 2 attacks"),
        (("--strategy", "collaborative_inference(validation=0.2)"), "validation is not for --engine deployment"),
        (("--defense", "randomized_smoothing_block"), "randomized_smoothing_block is told who lies, which nobody"),
        (("--start-from", "{file}"), "--start-from is not for --engine deployment: there each agent has its own"),
        (("--num-malicious", "1", "--attack", "missing"), "--num-malicious is not for --engine deployment"),
    ],
)
def test_what_nobody_can_do_on_machines_of_their_own_is_refused(thornbed, tmp_path, words, sentence):
    file = tmp_path / "model.safetensors"
    file.touch()
    given = [word.format(file=file) for word in words]
    base = ["run", "--task", "digits", "--strategy", "collaborative_inference", "--engine", "deployment"]
    said = thornbed(*base, "--superlink", "127.0.0.1:1", "--output", tmp_path / "run", *given)
    assert said.code == 2
    assert sentence in said.sentence
