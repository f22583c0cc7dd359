"""Vertical learning from the command line: exact, the same in every engine, attacked, and what it refuses."""

from __future__ import annotations

import importlib
import json
import math

import pytest
import torch
import torch.nn.functional as F
from flwr.app import Context
from torch import nn

from tests.conftest import read_lines
from thornbed.attacks.vertical.cooperative_backdoor import CooperativeAdversary
from thornbed.flower_apps.client_app import app
from thornbed.flower_apps.engines.inline import InlineGrid
from thornbed.flower_apps.resolving import resolve
from thornbed.flower_apps.schemes.scheme import built
from thornbed.flower_apps.schemes.vertical.run import VerticalRun
from thornbed.flower_apps.settings import settings_from
from thornbed.protocol.actions import EVALUATE_SPLIT, IDENTIFY, QUERY_ROWS, TRAIN_SPLIT
from thornbed.protocol.randomness import generator
from thornbed.protocol.threads import one_thread
from thornbed.tasks.blocks import Blocks, split
from thornbed.tasks.digits import digits
from thornbed.tasks.split.order import batches

STRATEGY, MODEL = "split_nn(embedding_size=8, hidden=16, top_learning_rate=0.01)", "patch_cnn(width=4)"
FLAGS = ("run", "--strategy", STRATEGY, "--model", MODEL, "--learning-rate", "0.01")
SMALL = (*FLAGS, "--task", "digits(num_train=300)", "--num-clients", "4", "--batch-size", "100")
ATTACK = "cooperative_backdoor(size=(3, 3), num_known=120, epochs=40, steps=10, confidence=0.1)"


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def made(**values):
    given = {"task": "digits(num_train=300)", "strategy": STRATEGY, "model": MODEL, "num_clients": 4}
    return resolve(settings_from({**given, "batch_size": 64, "learning_rate": 0.01, **values}))


class Spied(InlineGrid):
    """A grid that notes the kind of every message, and what is in its reply.

    Its clients live between two messages, as they do inline, or all of them is in `context.state`, as elsewhere.
    """

    def __init__(self, settings, *, living=True):
        super().__init__(app, settings.num_clients, settings.to_run_config())
        if not living:
            self._contexts = {node: recorded(context) for node, context in self._contexts.items()}
        self.kinds, self.arrays = [], set()

    def push_messages(self, messages):
        messages = list(messages)
        self.kinds += [message.metadata.message_type for message in messages]
        return super().push_messages(messages)

    def pull_messages(self, message_ids):
        replies = list(super().pull_messages(message_ids))
        for reply in replies:
            assert not reply.has_error(), reply.error.reason
            for record in reply.content.array_records.values():
                self.arrays |= set(record)
        return replies


def recorded(context):
    """Return a context as Flower's own engines give it, in which records alone last."""
    return Context(context.run_id, context.node_id, context.node_config, context.state, context.run_config)


def trace(settings, grid=None):
    """Return the losses of all steps of a run, and its strategy."""
    made_strategy, losses = built(settings).new_strategy(), []
    made_strategy.start(
        grid or Spied(settings),
        made_strategy.initial(),
        num_rounds=settings.rounds,
        evaluate_fn=lambda server_round, arrays: losses.extend(made_strategy.losses if server_round else []),
    )
    return losses, made_strategy


def central(settings):
    """Return the losses of the joint network trained in one place."""
    task, run = digits(None, num_train=300), built(settings)
    parts = split(task.samples("train").x, run.blocks)
    joint = nn.ModuleList([*(run.bottom_model(client) for client in range(4)), run.new_strategy().top.top])
    optimizers = [torch.optim.Adam(joint[:-1].parameters(), lr=settings.learning_rate)]
    optimizers.append(torch.optim.Adam(joint[-1].parameters(), lr=0.01))
    losses = []
    for server_round in range(1, settings.rounds + 1):
        source = generator(settings.seed, "batches", server_round)
        for rows in batches(300, settings.batch_size, settings.local_epochs, source):
            logits = joint[-1](torch.stack([net(x[rows]) for net, x in zip(joint, parts)], dim=1))
            loss = F.cross_entropy(logits, task.train.y[rows])
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("living", [True, False])
def test_the_losses_are_those_of_the_joint_network_in_one_place(living, tmp_path):
    settings = made(rounds=3, local_epochs=1.5, output=str(tmp_path / "run"))
    with one_thread():
        losses, strategy = trace(settings, Spied(settings, living=living))
        expected = central(settings)
    assert len(losses) == 3 * math.ceil(1.5 * 5)
    assert expected[-1] < expected[0]
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(expected), atol=1e-6, rtol=0)
    assert strategy.figures["clean_data_accuracy"] > 0.15


@pytest.mark.parametrize(
    "attack", [ATTACK, "badvfl(size=(3, 3), num_known=60)", "villain(warm_up=1.0, swapping=1.0, num_known=60)"]
)
def test_adversaries_whose_state_travels_do_what_those_that_live_on_do(attack, tmp_path):
    found = []
    for living in (True, False):
        settings = made(rounds=4, attack=attack, num_malicious=2, output=str(tmp_path / f"living {living}"))
        losses, strategy = trace(settings, Spied(settings, living=living))
        found.append((losses, strategy.figures))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6)
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-6)
    assert found[0][1]["gradient_perturbation"] > 0


def test_a_step_is_one_message_and_colluding_adds_none(tmp_path, monkeypatch):
    monkeypatch.setattr(CooperativeAdversary, "hears", lambda *given: pytest.fail("it read the server's gradients"))
    monkeypatch.setattr(CooperativeAdversary, "learns", lambda *given: pytest.fail("it read the server's gradients"))
    kinds, arrays = {}, {}
    for attack in ("none", ATTACK):
        settings = made(rounds=2, attack=attack, output=str(tmp_path / attack[:4]))
        grid = Spied(settings)
        trace(settings, grid)
        kinds[attack], arrays[attack] = grid.kinds, grid.arrays
    assert kinds["none"] == kinds[ATTACK]
    steps = 2 * 5
    assert {kind: kinds["none"].count(kind) for kind in sorted(set(kinds["none"]))} == {
        EVALUATE_SPLIT: 2 * 4,
        IDENTIFY: 4,
        QUERY_ROWS: 4,
        TRAIN_SPLIT: steps * 4,
    }
    # What adversaries add tells the testbed how they do, where it asks for that.
    assert arrays[ATTACK] - arrays["none"] == {"probe", "triggered", "replaced", "true"}


def test_local_steps_learn_more_from_a_message():
    losses = [
        trace(made(rounds=4, learning_rate=1e-3, strategy=f"split_nn(local_steps={steps})"))[0] for steps in (1, 4)
    ]
    assert losses[1][-1] < losses[0][-1] - 0.05


def test_an_attack_is_measured_beside_its_controls_and_leaves_pictures(thornbed, tmp_path):
    folder = tmp_path / "run"
    said = thornbed(*SMALL, "--rounds", "3", "--attack", ATTACK, "--num-malicious", "2", "--output", folder)
    assert said.code == 0, said.err
    assert "2 of 4 clients are malicious; cooperative_backdoor must know its own data and the labels of a" in said.out
    metrics = summary(folder)["metrics"]
    assert metrics["connectivity"] == pytest.approx(2.0)
    assert metrics["inferred_samples"] >= 1
    assert metrics["gradient_perturbation"] > 0
    assert summary(folder)["malicious"] == [2, 3]
    assert json.loads((folder / "config.json").read_text())["adversary_edges"] == [[2, 3]]
    for name in ("trigger.png", "curves.png", "model.safetensors"):
        assert (folder / name).stat().st_size > 100
    assert len(read_lines(folder)) == 4


@pytest.mark.slow
def test_the_backdoor_beats_its_controls_and_leaves_clean_samples_alone(thornbed, tmp_path):
    """With seeds 0, 1, 2: success 1.0, untriggered at most 0.004, replaced at most 0.49, accuracy 0.92 to 0.93."""
    spec = "cooperative_backdoor(size=(3, 3), num_known=150, epochs=60, steps=200, confidence=0.9, budget={})"
    network = "split_nn(embedding_size=16, hidden=64, top_learning_rate=0.003)"
    flags = ("run", "--task", "digits", "--strategy", network, "--learning-rate", "0.003", "--num-clients", "4")
    flags += ("--rounds", "4", "--batch-size", "64")
    found = {}
    for name, attack in (("honest", ()), ("unpoisoned", ("0.0",)), ("attacked", ("0.02",))):
        more = ("--num-malicious", "2", "--attack", spec.format(*attack)) if attack else ()
        said = thornbed(*flags, *more, "--output", tmp_path / name)
        assert said.code == 0, said.err
        found[name] = summary(tmp_path / name)["metrics"]
    assert found["honest"]["clean_data_accuracy"] > 0.85
    assert found["attacked"]["clean_data_accuracy"] > found["honest"]["clean_data_accuracy"] - 0.04
    success = found["attacked"]["attack_success_rate"]
    assert success > 0.9
    assert success > found["attacked"]["untriggered_rate"] + 0.8
    assert success > found["attacked"]["replaced_rate"] + 0.3
    # The trigger does nothing to a model that learned from no poisoned row.
    assert found["unpoisoned"]["attack_success_rate"] < 0.1
    assert found["unpoisoned"]["gradient_perturbation"] == 0
    assert found["unpoisoned"]["clean_data_accuracy"] == found["honest"]["clean_data_accuracy"]


@pytest.mark.parametrize(
    "attack", ["badvfl(size=(3, 3), num_known=60)", "villain(warm_up=1.0, swapping=1.0, num_known=60)"]
)
def test_attacks_that_watch_agree_later_and_go_on_where_they_stopped(thornbed, tmp_path, attack):
    flags = (*SMALL, "--attack", attack, "--num-malicious", "2")
    for name, rounds in (("whole", (5,)), ("parts", (2, 5))):
        for number, last in enumerate(rounds):
            resume = ("--resume",) if number else ()
            said = thornbed(*flags, *resume, "--rounds", str(last), "--output", tmp_path / name)
            assert said.code == 0, said.err
    whole, parts = read_lines(tmp_path / "whole"), read_lines(tmp_path / "parts")
    assert [line["train_loss"] for line in whole[1:]] == pytest.approx([line["train_loss"] for line in parts[1:]])
    assert whole[1]["inferred_samples"] is None
    assert whole[5]["inferred_samples"] is not None
    assert whole[5]["attack_success_rate"] == parts[5]["attack_success_rate"] is not None


@pytest.mark.slow
def test_flowers_own_engine_finds_the_same(thornbed, tmp_path):
    flags = (*SMALL, "--rounds", "2", "--attack", ATTACK, "--num-malicious", "2", "--seed", "1")
    for engine in ("inline", "simulation"):
        said = thornbed(*flags, "--engine", engine, "--output", tmp_path / engine)
        assert said.code == 0, said.err
    one, other = (summary(tmp_path / engine)["metrics"] for engine in ("inline", "simulation"))
    assert one == pytest.approx(other, abs=1e-6)


@pytest.mark.parametrize(
    "defense", ["gradient_noise(variance=1e-6)", "block_dropout(share=0.2) + embedding_clipping(max_norm=0.2)"]
)
def test_defenses_run_with_any_attack_and_say_what_they_did(thornbed, tmp_path, defense):
    flags = (*SMALL, "--attack", ATTACK, "--num-malicious", "2", "--defense", defense)
    said = thornbed(*flags, "--rounds", "1", "--output", tmp_path / "run")
    assert said.code == 0, said.err
    told = read_lines(tmp_path / "run")[1]["defense"]
    expected = {"noise_share"} if "noise" in defense else {"dropped_share", "clipped_embeddings_share"}
    assert set(told) == expected
    assert all(0 < share <= 1 for share in told.values())


def test_a_client_with_other_rows_is_refused_before_training(monkeypatch):
    from thornbed.strategies import RunStopped
    from thornbed.tasks.split.records import Records

    whole = VerticalRun.records

    def shorter(run, client):
        train, test = whole(run, client)
        rows = train.ids != 7
        return (Records(train.ids[rows], train.x[rows]) if client == 2 else train), test

    monkeypatch.setattr(VerticalRun, "records", shorter)
    settings = made(rounds=1)
    grid = Spied(settings)
    with pytest.raises(RunStopped, match="client 2 holds other samples than the server: it lacks training sample 7"):
        trace(settings, grid)
    assert TRAIN_SPLIT not in grid.kinds


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            (
                "--task",
                "digits(num_train=80)",
                "--attack",
                "cooperative_backdoor(num_known=20, size=(3, 3), budget=0.005)",
            ),
            "cooperative_backdoor poisons no row with budget = 0.005 of 80 training rows; more than 0.0063 is one row",
        ),
        (("--task", "har"), "--task har does not go with --strategy split_nn, which takes block_table, cifar10, "),
        (("--attack", "pixel_trigger"), "--attack pixel_trigger does not go with --strategy split_nn, which takes bad"),
        (("--defense", "flip"), "--defense flip does not go with --strategy split_nn, which takes block_dropout"),
        (("--strategy", "fedavg", "--attack", "badvfl"), "--attack badvfl does not go with --strategy fedavg"),
        (("--clients-per-round", "3"), "--clients-per-round means nothing with --strategy split_nn"),
        (("--curious", "agic"), "--curious means nothing with --strategy split_nn"),
        (("--device", "cuda"), "--device cuda is not for --strategy split_nn"),
        (("--model", "cnn"), "there is no bottom model called cnn"),
        (("--model", "patch_cnn(width=0)"), "patch_cnn needs width >= 1"),
        (("--partition", "iid"), "there is no way of dividing features called iid"),
        (("--partition", "contiguous(sizes=(1, 2, 3, 4))"), "contiguous needs 4 positive sizes that add up to 64"),
        (("--partition", "contiguous", "--num-clients", "6"), "column_layers takes samples of any shape"),
        (("--task", "phishing"), "a sample has shape (45,); contiguous divides any"),
        (("--num-clients", "5"), "grid needs rows that divide num_agents: num_agents = 5, rows = 2"),
        (("--strategy", "split_nn(embedding_size=0)"), "a top model needs embedding_size >= 1"),
        (("--strategy", "split_nn(embedding_size=1000000000000)"), "split_nn has no room for a top model of"),
        (("--strategy", "split_nn(local_steps=0)"), "a top model needs local_steps >= 1"),
        (("--strategy", "split_nn(top_learning_rate=-1.0)"), "split_nn needs a finite top_learning_rate > 0"),
        (("--defense", "gradient_noise(variance=-1.0)"), "gradient_noise needs a finite variance >= 0"),
        (("--attack", "badvfl + villain"), "--attack takes one attack of vertical learning, not 2 joined by +"),
        (("--attack", ATTACK, "--num-malicious", "0"), "--num-malicious 0 leaves the attack without an adversary"),
        (("--attack", "cooperative_backdoor(num_known=1)"), "cooperative_backdoor needs at least two known labels"),
        (
            ("--attack", "cooperative_backdoor(size=(3, 3), num_known=2)"),
            "adversaries need two known labels of the target class",
        ),
        (
            ("--attack", "cooperative_backdoor(size=(3, 3), num_known=400)"),
            "adversaries are to know 64 labels of the target class",
        ),
        (
            ("--attack", "cooperative_backdoor(size=(7, 7))"),
            "cooperative_backdoor has a trigger larger than its budget: 1 of 7 x 7 are 49 pixels, area = 40",
        ),
        (("--attack", "cooperative_backdoor"), "no place of 5 x 7 lies in the adversaries' blocks alone"),
        (
            ("--attack", "cooperative_backdoor(size=(5, 2), method=2)"),
            "a subtrigger of 5 x 2 is larger than the block of adversary 2",
        ),
        (
            (
                *["--partition", "contiguous", "--num-clients", "6", "--model", "column_layers", "--attack"],
                "cooperative_backdoor(size=(1, 3), layers='convolutions')",
            ),
            "the block of adversary 3, 11 columns of samples (1, 8, 8), is none; divide the features as grid does",
        ),
        (("--attack", "cooperative_backdoor(size=(3, 3), target=10)"), "cooperative_backdoor needs target < number"),
        (("--attack", "cooperative_backdoor(size=3)"), "cooperative_backdoor takes size: tuple[int, int], not 3"),
        (("--attack", "cooperative_backdoor(size=(3, 3), latent=100000000000000)"), "has no room for autoencoders"),
        (("--attack", "cooperative_backdoor(graph='file', size=(3, 3))"), 'graph = "file" needs a graph_file'),
        (("--attack", "cooperative_backdoor(size=(3, 3), budget=2)"), "cooperative_backdoor needs 0 <= budget <= 1"),
        (("--attack", ATTACK, "--num-malicious", "5"), "--num-malicious 5 is more than --num-clients 4"),
        (("--attack", ATTACK, "--malicious-ids", "99"), "--malicious-ids names client 99; clients are 0 to 3"),
        (("--min-replies", "5"), "--min-replies 5 is more than --num-clients 4"),
        (("--min-replies", "0"), "--min-replies takes a whole number (at least 1), not 0"),
        (("--local-epochs", "0"), "--local-epochs takes a number (above 0), not 0"),
        (("--attack", "cooperative_backdoor(vote='all')"), "cooperative_backdoor takes vote: Literal['printed'"),
        (("--attack", "cooperative_backdoor(graf='line')"), "cooperative_backdoor has no option graf; it takes target"),
        (("--task", "sent140"), "sent140"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_code_2(thornbed, tmp_path, flags, sentence):
    said = thornbed(*SMALL, "--output", tmp_path / "run", *flags)
    assert said.code == 2
    assert sentence in said.sentence
    assert "Traceback" not in said.err
    assert len(said.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("blocks_made", "sentence"),
    [
        ((range(17), range(16, 32), range(32, 48), range(48, 64)), "blocks overlap: column 16 is in 2 of them"),
        ((range(16), range(16, 32), range(32, 48), range(48, 63)), "blocks leave out 1 of 64 columns, the first is 63"),
        (
            (range(32), range(32, 64)),
            "makes 2 blocks, and every client needs one: --num-clients 4",
        ),
    ],
)
def test_a_division_of_ones_own_that_is_none_is_refused(thornbed, tmp_path, monkeypatch, blocks_made, sentence):
    def contiguous(sample_shape: tuple[int, ...], num_agents: int) -> Blocks:
        return tuple(map(tuple, blocks_made))

    monkeypatch.setattr(importlib.import_module("thornbed.tasks.blocks.contiguous"), "contiguous", contiguous)
    said = thornbed(*SMALL, "--partition", "contiguous", "--model", "column_layers", "--output", tmp_path / "run")
    assert said.code == 2
    assert sentence in said.sentence
    assert len(said.err.strip().splitlines()) == 1


def test_a_graph_that_is_not_connected_is_refused(thornbed, tmp_path):
    (tmp_path / "edges.txt").write_text("0 1\n2 3\n")
    attack = f"cooperative_backdoor(size=(3, 3), num_known=60, graph='file', graph_file='{tmp_path / 'edges.txt'}')"
    said = thornbed(*SMALL, "--attack", attack, "--num-malicious", "4", "--output", tmp_path / "run")
    assert said.code == 2
    assert "the adversaries' graph is not connected: adversary 2 cannot be reached from 0 (2 parts)" in said.sentence
