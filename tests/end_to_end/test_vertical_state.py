"""What clients of vertical learning keep: a run that goes on is the run that never stopped; what is lost is said."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from flwr.app import Context

from tests.conftest import read_lines
from thornbed.clients.vfl import EmbeddingClient
from thornbed.flower_apps.client_app import app
from thornbed.flower_apps.engines.inline import InlineGrid
from thornbed.flower_apps.resolving import resolve
from thornbed.flower_apps.run.client import state_folder
from thornbed.flower_apps.schemes.scheme import built
from thornbed.flower_apps.schemes.vertical.handlers import HANDLERS
from thornbed.flower_apps.settings import settings_from
from thornbed.protocol.actions import EVALUATE_SPLIT, QUERY_ROWS, TRAIN_SPLIT
from thornbed.protocol.split import read_evaluation, read_rows_request, read_step
from thornbed.protocol.tensor_files import load_tensors, save_tensors
from thornbed.strategies import RunStopped

STRATEGY = "split_nn(embedding_size=8, hidden=16, top_learning_rate=0.01)"
SMALL = {"task": "digits(num_train=300)", "strategy": STRATEGY, "model": "patch_cnn(width=4)", "num_clients": 4,
         "batch_size": 100, "learning_rate": 0.01}  # fmt: skip
FLAGS = ("run", *(word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", value)))
COOPERATIVE = "cooperative_backdoor(size=(3, 3), num_known=120, epochs=40, steps=10, confidence=0.1)"
BADVFL = "badvfl(size=(3, 3), num_known=60)"
VILLAIN = "villain(warm_up=1.0, swapping=1.0, num_known=60)"


def made(folder, **values):
    return resolve(settings_from({**SMALL, "output": str(folder), **values}))


def path(folder, client, server_round):
    return folder / "clients" / f"client-{client}-round-{server_round}.safetensors"


def forgets(client):
    """Take what is in a client's memory, as where its node was restarted."""
    for name in client.state.memory.names():
        client.state.memory.drop(name)


def dropped(settings, *, living=True):
    """Run a federation and return of every round who was dropped."""
    grid = InlineGrid(app, settings.num_clients, settings.to_run_config())
    if not living:
        for node, own in grid._contexts.items():
            grid._contexts[node] = Context(own.run_id, own.node_id, own.node_config, own.state, own.run_config)
    strategy, found = built(settings).new_strategy(), []

    def look(server_round, arrays):
        if server_round:
            found.append([dict(drop) for drop in strategy.account.dropped])

    strategy.start(grid, strategy.initial(), num_rounds=settings.rounds, evaluate_fn=look)
    return found


def restored(monkeypatch):
    """Return a list that will have the tensors of every client that goes on from some."""
    found, restore = [], EmbeddingClient.restore

    def watched(self, state, moment):
        found.append(dict(state))
        restore(self, state, moment)

    monkeypatch.setattr(EmbeddingClient, "restore", watched)
    return found


def assert_same_run(one, other):
    """Check that two runs have the same model, and the same figures in every round, to the last bit."""
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    for left, right in zip(read_lines(one), read_lines(other), strict=True):
        lasting = [{name: value for name, value in line.items() if "seconds" not in name} for line in (left, right)]
        assert lasting[0] == lasting[1]
    last = read_lines(one)[-1]["round"]
    for client in range(4):
        assert path(one, client, last).read_bytes() == path(other, client, last).read_bytes()


def in_parts(thornbed, folder, flags, rounds):
    """Run up to each of these rounds, each time with another command in the same folder."""
    for number, last in enumerate(rounds):
        resume = ("--resume",) if number else ()
        said = thornbed(*FLAGS, *flags, *resume, "--rounds", last, "--output", folder)
        assert said.code == 0, said.err


@pytest.mark.parametrize(
    ("attack", "rounds"),
    [("none", (1, 3)), (COOPERATIVE, (1, 2, 3)), (BADVFL, (2, 5)), (BADVFL, (3, 5)), (VILLAIN, (1, 4, 5))],
)
def test_a_run_that_goes_on_is_the_run_that_was_never_stopped(thornbed, tmp_path, attack, rounds):
    flags = () if attack == "none" else ("--attack", attack, "--num-malicious", 2)
    in_parts(thornbed, tmp_path / "whole", flags, rounds[-1:])
    in_parts(thornbed, tmp_path / "parts", flags, rounds)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    if attack != "none":
        assert read_lines(tmp_path / "parts")[-1]["gradient_perturbation"] > 0  # they had agreed, and poisoned


@pytest.mark.slow
def test_a_simulation_that_goes_on_is_the_run_that_was_never_stopped(thornbed, tmp_path):
    """Inline: the engines give the same bytes."""
    flags = ("--attack", COOPERATIVE, "--num-malicious", 2)
    in_parts(thornbed, tmp_path / "whole", flags, (2,))
    in_parts(thornbed, tmp_path / "parts", (*flags, "--engine", "simulation"), (1, 2))
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert read_lines(tmp_path / "parts")[-1]["gradient_perturbation"] > 0


def test_a_round_that_is_made_again_is_the_same_round(thornbed, tmp_path, monkeypatch):
    """The run is killed when all clients have kept round 3, and the server has not."""
    from thornbed.flower_apps.records.folder import Folder

    flags = ("--attack", COOPERATIVE, "--num-malicious", 2)
    in_parts(thornbed, tmp_path / "whole", flags, (4,))
    with monkeypatch.context() as patch:
        append = Folder.append

        def killed(self, line):
            if line["round"] == 3:
                raise RunStopped("killed")
            return append(self, line)

        patch.setattr(Folder, "append", killed)
        said = thornbed(*FLAGS, *flags, "--rounds", 4, "--output", tmp_path / "parts")
    assert said.code == 1
    assert all(
        path(tmp_path / "parts", client, server_round).exists() for client in range(4) for server_round in (2, 3)
    )
    said = thornbed(*FLAGS, *flags, "--rounds", 4, "--resume", "--output", tmp_path / "parts")
    assert said.code == 0, said.err
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_every_client_has_its_last_two_rounds_in_a_file(thornbed, tmp_path):
    in_parts(thornbed, tmp_path, (), (3,))
    assert sorted((tmp_path / "clients").iterdir()) == [path(tmp_path, c, r) for c in range(4) for r in (2, 3)]


def test_a_run_whose_client_has_lost_its_file_is_refused_before_anything_runs(thornbed, tmp_path):
    in_parts(thornbed, tmp_path, (), (2,))
    before = (tmp_path / "metrics.jsonl").read_bytes()
    path(tmp_path, 2, 2).unlink()  # that of round 1 is there, and older than the server's model
    said = thornbed(*FLAGS, "--rounds", 3, "--resume", "--output", tmp_path)
    assert said.code == 2
    assert f"cannot be gone on with: what client 2 kept after round 2 is not in {tmp_path / 'clients'}" in said.sentence
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("letter", ["features-2", "decision"])
def test_a_run_whose_adversaries_lost_their_letters_is_refused_before_anything_runs(thornbed, tmp_path, letter):
    in_parts(thornbed, tmp_path, ("--attack", COOPERATIVE, "--num-malicious", 2), (2,))
    (tmp_path / "attackers" / f"{letter}.safetensors").unlink()
    said = thornbed("run", "--rounds", 3, "--resume", "--output", tmp_path)
    assert said.code == 2
    assert f"what adversaries left for each other is not in {tmp_path / 'attackers'} ({letter})" in said.sentence


def test_a_client_that_missed_steps_and_not_the_ends_of_rounds_goes_on_as_it_was(thornbed, tmp_path, monkeypatch):
    """It is counted in these rounds, so that the records do not say that it kept its network after them."""

    def failing(run, client, message):
        request = read_step(message)
        if client.number == 2 and request.server_round > 1 and request.step == 1:
            raise RuntimeError("busy")
        return answer(run, client, message)

    answer = HANDLERS[TRAIN_SPLIT]
    monkeypatch.setitem(HANDLERS, TRAIN_SPLIT, failing)
    in_parts(thornbed, tmp_path / "whole", (), (4,))
    in_parts(thornbed, tmp_path / "parts", (), (3, 4))
    assert [len(line.get("dropped", ())) for line in read_lines(tmp_path / "parts")] == [0, 0, 1, 1, 1]
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("living", [True, False])
@pytest.mark.parametrize("foreign", [False, True])
def test_a_client_that_cannot_say_what_it_holds_learns_from_the_round_on_in_which_it_can(
    tmp_path, monkeypatch, living, foreign
):
    """It begins with a network of its own then, whatever another run has left in its folder."""

    def late(run, client, message):
        if client.number == 2 and read_rows_request(message)[0] == 1:
            raise RuntimeError("the disk is not mounted")
        return answer(run, client, message)

    answer = HANDLERS[QUERY_ROWS]
    monkeypatch.setitem(HANDLERS, QUERY_ROWS, late)
    settings, begun = made(tmp_path, rounds=2), []
    first = {f"model.{name}": each for name, each in built(settings).bottom_model(2).state_dict().items()}
    if foreign:
        (tmp_path / "clients").mkdir()
        save_tensors(path(tmp_path, 2, 1), {name: each + 1 for name, each in first.items()})
    step = EmbeddingClient.step

    def watched(self, *given):
        begun.append({name: each for name, each in self.state().items() if name.startswith("model.")})
        return step(self, *given)

    monkeypatch.setattr(EmbeddingClient, "step", watched)
    one, two = dropped(settings, living=living)
    assert [(drop["client"], drop["steps"]) for drop in one] == [(2, 4)]
    assert two == []
    mine = begun[3 * 3 + 2]  # the first of its steps: three clients made the three of round 1
    assert all(torch.equal(mine[name], each) for name, each in first.items())
    assert [path(tmp_path, 2, server_round).exists() for server_round in (1, 2)] == [False, True]
    moved, _ = load_tensors(path(tmp_path, 2, 2))
    assert any(not torch.equal(moved[name], each) for name, each in first.items())


@pytest.mark.parametrize("living", [True, False])
def test_a_client_that_missed_the_end_of_a_round_and_is_restarted_goes_on_from_the_one_before(
    tmp_path, monkeypatch, caplog, living
):
    """What it kept last is older than the server's checkpoint, and better than nothing."""

    def failing(run, client, message):
        if client.number == 2 and read_evaluation(message).server_round == 2:
            forgets(client)
            before.append(load_tensors(path(tmp_path, 2, 1))[0])
            states.clear()
            raise RuntimeError("the machine went down")
        return answer(run, client, message)

    answer, before = HANDLERS[EVALUATE_SPLIT], []
    monkeypatch.setitem(HANDLERS, EVALUATE_SPLIT, failing)
    states = restored(monkeypatch)
    with caplog.at_level(logging.WARNING, "flwr"):
        found = dropped(made(tmp_path, rounds=3), living=living)
    assert [[drop["client"] for drop in each] for each in found] == [[], [2], []]
    assert "Client 2 goes on from round 1, the last one after which it kept its network" in caplog.text
    assert [path(tmp_path, 2, server_round).exists() for server_round in (1, 2, 3)] == [True, False, True]
    [kept] = before
    assert any(
        state.keys() == kept.keys() and all(torch.equal(state[name], each) for name, each in kept.items())
        for state in states
    )


@pytest.mark.parametrize("living", [True, False])
def test_a_client_that_is_restarted_within_a_round_learns_from_no_gradient_of_what_it_has_lost(
    tmp_path, monkeypatch, living
):
    def restarted(run, client, message):
        request = read_step(message)
        if client.number == 2 and (request.server_round, request.step) == (2, 1):
            assert request.gradient is not None
            forgets(client)
        return answer(run, client, message)

    answer = HANDLERS[TRAIN_SPLIT]
    monkeypatch.setitem(HANDLERS, TRAIN_SPLIT, restarted)
    assert dropped(made(tmp_path, rounds=2), living=living) == [[], []]


@pytest.mark.parametrize("foreign", [False, True])
def test_a_client_that_has_lost_all_is_counted_and_never_begins_anew(tmp_path, monkeypatch, foreign):
    """Also where what another run left lies in its folder."""

    def failing(run, client, message):
        if client.number == 2 and read_evaluation(message).server_round == 1:
            forgets(client)
            raise RuntimeError("the machine went down")
        return answer(run, client, message)

    answer = HANDLERS[EVALUATE_SPLIT]
    monkeypatch.setitem(HANDLERS, EVALUATE_SPLIT, failing)
    settings = made(tmp_path, rounds=3)
    if foreign:
        (tmp_path / "clients").mkdir()
        network = built(settings).bottom_model(2).state_dict()
        for server_round in (1, 7):
            save_tensors(path(tmp_path, 2, server_round), {f"model.{name}": each for name, each in network.items()})
    one, *later = dropped(settings)
    assert [(drop["client"], drop["steps"]) for drop in one] == [(2, 1)]
    for number, [drop] in enumerate(later, start=1):
        assert (drop["client"], drop["steps"]) == (2, 4)
        lost = f"LostState: client 2 has lost what it kept after round {number} ({state_folder(settings, {})})"
        assert drop["reason"].endswith(lost)
    assert not list((tmp_path / "clients").glob("client-2-*"))


def test_a_client_without_a_folder_lives_as_long_as_its_memory():
    """As in deployment without `state`: the run goes on round by round, and nothing is written."""
    assert dropped(made("", rounds=3), living=False) == [[], [], []]


def test_what_was_kept_says_what_became_of_it(thornbed, tmp_path):
    """The networks of model.safetensors are those that clients kept after the last round."""
    in_parts(thornbed, tmp_path, (), (2,))
    model, said = load_tensors(tmp_path / "model.safetensors")
    for client in range(4):
        kept, _ = load_tensors(path(tmp_path, client, 2))
        networks = {name.removeprefix("model."): each for name, each in kept.items() if name.startswith("model.")}
        assert networks
        assert all(torch.equal(model[f"extractor{client}.{name}"], each) for name, each in networks.items())
    assert json.loads((tmp_path / "config.json").read_text())["format"] >= 2
    assert said["extractors_saw_rows"] == "300"
