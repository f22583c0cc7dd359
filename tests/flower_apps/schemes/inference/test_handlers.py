"""What a client of collaborative inference answers: alone with its own network, and one of several that act as one."""

from __future__ import annotations

import pytest
import torch
from flwr.app import ConfigRecord
from flwr.supercore.task_identity import TaskIdentity

from thornbed.flower_apps.resolving import resolve
from thornbed.flower_apps.run.client import Client
from thornbed.flower_apps.schemes.inference import handlers
from thornbed.flower_apps.schemes.inference.handlers import embed_rows, own_extractor
from thornbed.flower_apps.schemes.inference.run import InferenceRun
from thornbed.flower_apps.schemes.inference.scheme import SCHEME
from thornbed.flower_apps.settings import BadSettings, settings_from
from thornbed.protocol.client_state import ClientState, LivingMemory
from thornbed.protocol.inference import EmbedRequest, embed_message, read_embed_reply
from thornbed.protocol.messages import RefusedReply
from thornbed.tasks.split.kept_state import MODEL

NUMBER, ROWS = 2, torch.tensor([3, 0, 7])


def made(**values: object) -> InferenceRun:
    said = {"task": "digits", "strategy": "collaborative_inference(embedding_size=6)", "num_clients": 4}
    return InferenceRun(resolve(settings_from({**said, "engine": "deployment", **values})))


def client(folder=None, number=NUMBER, **node_config: str) -> Client:
    return Client(number, node_config, ClientState(number, LivingMemory(), folder), 1)


@pytest.fixture
def kept(tmp_path):
    """The folder of a client that has finished two rounds of SplitNN, and its network of the second."""
    folder = tmp_path / "state"
    for server_round in (1, 2):
        network = made(seed=server_round).bottom_model(NUMBER)
        state = {f"{MODEL}{name}": tensor for name, tensor in network.state_dict().items()}
        kept = {**state, "optimizer.step": torch.tensor(3.0)}
        client(folder).state.save(server_round, kept, after=server_round - 1)
    return folder, network.eval()


def sent(run, server_round, who):
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    message = embed_message(EmbedRequest("test", ROWS, server_round), ConfigRecord(), node_id=5)
    message.metadata.__dict__["_message_id"] = "1"
    return read_embed_reply(embed_rows(run, who, message), (len(ROWS), 6), finite=True)


def test_a_client_embeds_with_what_it_kept_last(kept):
    folder, network = kept
    client(folder, number=NUMBER + 20).state.save(7, {f"{MODEL}weight": torch.ones(1)})  # of another client
    with torch.no_grad():
        expected = network(made().columns("test", NUMBER)[ROWS])
    assert torch.equal(sent(made(), 2, client(folder)), expected)


def test_a_malicious_client_lies_from_the_attacked_round_on_and_as_the_node_says(kept):
    run, folder = made(attack="feature_flip(amplification=2)"), kept[0]

    def malicious(**words):
        return client(folder, role="malicious", **words)

    truth = sent(run, 3, client(folder))
    assert torch.equal(sent(run, 2, malicious()), truth)
    torch.testing.assert_close(sent(run, 3, malicious()), -2 * truth)
    torch.testing.assert_close(sent(made(), 3, malicious(attack="feature_flip(amplification=5)")), -5 * truth)
    several = "missing(agents=(1,)) + feature_flip(amplification=3, agents=(2,))"
    torch.testing.assert_close(sent(run, 3, malicious(attack=several)), -3 * truth)
    with pytest.raises(RefusedReply, match="it sent nothing"):
        sent(run, 3, malicious(attack="missing"))


@pytest.mark.parametrize(
    ("attack", "sentence"),
    [
        ("none", "this node is malicious and there is no attack: name one in --node-config or in the run"),
        ("missing(agents=(1,))", r"has no part in the attack missing\(agents=\(1,\)\)"),
        ("missing + feature_flip", "of several parts says which clients carry out each"),
        ("missing(agents=2)", r"takes numbers of clients, as in missing\(agents=\(6, 9\)\); missing says 2"),
        ("label_flip", "attack label_flip in --node-config is none of collaborative inference"),
        ("targeted_pgd", "attack targeted_pgd must know .*other.* which a malicious client does not learn here"),
        ("mising", "there is no attack called mising; did you mean missing"),
        ("feature_flip(amplification=0.0)", "feature_flip needs a finite amplification > 0"),
        ("feature_flip(factor=2.0)", "feature_flip has no option factor"),
    ],
)
def test_a_client_that_cannot_make_an_attack_alone_says_so_when_it_is_asked_who_it_is(attack, sentence):
    with pytest.raises(BadSettings, match=sentence):
        SCHEME.role(made(), client(role="malicious", attack=attack))


def test_the_role_is_what_the_node_says_of_itself_and_elsewhere_what_the_settings_say(tmp_path):
    assert SCHEME.role(made(), client()) == "benign"
    assert SCHEME.role(made(attack="missing"), client(role="malicious")) == "malicious"
    run = made(engine="inline", attack="missing", malicious_ids="2", output=str(tmp_path))
    assert [SCHEME.role(run, client(number=number, role="malicious")) for number in range(4)] == [
        "benign", "benign", "malicious", "benign"
    ]  # fmt: skip


def test_a_client_without_a_network_that_fits_says_so(kept):
    folder = kept[0]
    with pytest.raises(BadSettings, match='needs state="FOLDER" in --node-config'):
        own_extractor(made(), client())
    with pytest.raises(BadSettings, match=f"client 1 kept no network of a run of split_nn in {folder}"):
        own_extractor(made(), client(folder, number=1))
    other = made(strategy="collaborative_inference(embedding_size=7)")
    with pytest.raises(BadSettings, match=r"kept a network of other .* is \(6, \d+\) instead of \(7, \d+\) \("):
        own_extractor(other, client(folder))
    (folder / f"client-{NUMBER}-round-3.safetensors").write_bytes(b"cut")
    with pytest.raises(BadSettings, match=f"client {NUMBER} kept a network in {folder} that cannot be read: "):
        own_extractor(made(), client(folder))


def test_attackers_on_one_machine_find_once_what_all_of_them_send(tmp_path, monkeypatch):
    found = []
    find = handlers._lies
    monkeypatch.setattr(handlers, "_lies", lambda *given: found.append(1) or find(*given))
    attack = "missing(agents=(1,)) + feature_flip(amplification=3, agents=(2, 3))"
    values = {"engine": "inline", "attack": attack, "malicious_ids": "1,2,3", "local_epochs": 1.0}
    run = made(**values, output=str(tmp_path))
    truth = [sent(run, 2, client(number=number)) for number in range(4)]
    assert torch.equal(sent(run, 3, client(number=0)), truth[0])
    for number in (2, 3):
        torch.testing.assert_close(sent(run, 3, client(number=number)), -3 * truth[number])
    with pytest.raises(RefusedReply, match="it sent nothing"):
        sent(run, 3, client(number=1))
    again = made(**values, output=str(tmp_path))  # as another process makes the run
    torch.testing.assert_close(sent(again, 3, client(number=3)), -3 * truth[3])
    assert len(found) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--attack", "untargeted_pgd"), "attack untargeted_pgd must know"),
        (("--attack", "feature_flip(agents='x')"), "takes numbers of clients, as in feature_flip(agents=(6, 9))"),
        (("--attack", "feature_flip(agents=(1, 99))"), "--attack names client 99; clients are 0 to 9"),
        (("--attack", "feature_flip(agents=(-1, 2))"), "--attack names client -1; clients are 0 to 9"),
        (("--attack", "missing + feature_flip"), "of several parts says which clients carry out each"),
        (("--attack", "missing(agents=(1,)) + feature_flip(agents=(1,))"), "client 1 is given 2 attacks"),
        (("--strategy", "collaborative_inference(validation=0.2)"), "validation is not for --engine deployment"),
        (("--defense", "randomized_smoothing_block"), "randomized_smoothing_block is told who lies, which nobody"),
        (("--start-from", "{file}"), "--start-from is not for --engine deployment: there each client has its own"),
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
