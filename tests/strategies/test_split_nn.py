"""SplitNN over a grid: who does not answer is masked and counted, what is broken is refused, and a run goes on."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor, nn

from thornbed.clients.vfl import EmbeddingClient, EvaluationRows
from thornbed.defenses.vertical.gradient_noise import GradientNoise
from thornbed.flower_apps.engines.inline import InlineGrid
from thornbed.protocol.actions import EVALUATE_SPLIT, IDENTIFY, QUERY_ROWS, TRAIN_SPLIT
from thornbed.protocol.messages import Identity, identify_reply
from thornbed.protocol.randomness import generator
from thornbed.protocol.split import Held, embeddings_reply, read_evaluation, read_rows_request, read_step, rows_reply
from thornbed.protocol.vector import to_arrays, to_tensors
from thornbed.strategies import NumberedClients, RunStopped, SplitNN
from thornbed.strategies.split_nn import Course
from thornbed.tasks.split.order import batches
from thornbed.tasks.split.parties import HonestParty, train_parties
from thornbed.tasks.split.party_work import PartyWork
from thornbed.tasks.split.records import Records

PARTIES, ROWS, TESTS, SIZE = 3, 50, 20, 4
Spoil = Callable[[int, int, Message], Message]


def sgd(parameters) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.2)


def features(count: int, seed: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(count, 2 * PARTIES, generator=torch.Generator().manual_seed(seed))
    return x, (x.sum(dim=1) > 0).long()


def bottoms() -> list[nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return [nn.Sequential(nn.Linear(2, SIZE), nn.Tanh()) for _ in range(PARTIES)]


def records(party: int, ids: Tensor | None = None, seed: int = 1, count: int = ROWS) -> Records:
    x, _ = features(count, seed)
    return Records(torch.arange(count) if ids is None else ids, x[:, 2 * party : 2 * party + 2])


class Parties:
    """Parties that do what they are asked, and whatever else a test makes of their replies."""

    def __init__(self, spoil: Spoil = lambda party, turn, reply: reply, mute: frozenset[tuple[int, int]] = frozenset()):
        self.spoil, self.turn = spoil, [0] * PARTIES
        self.mute = mute  # (party, round) in which it does not say which samples it holds
        self.called_new: list[tuple[int, int, bool]] = []
        self.clients = [
            EmbeddingClient(records(party), records(party, seed=2, count=TESTS), PartyWork(bottom, sgd))
            for party, bottom in enumerate(bottoms())
        ]
        self.asked = 0

    def grid(self) -> InlineGrid:
        app = ClientApp()

        def own(context: Context) -> tuple[int, EmbeddingClient]:
            party = int(context.node_config["partition-id"])
            return party, self.clients[party]

        @app.query(IDENTIFY.removeprefix("query."))
        def identify(message: Message, context: Context) -> Message:
            return identify_reply(message, Identity(own(context)[0], "benign"))

        @app.query(QUERY_ROWS.removeprefix("query."))
        def rows(message: Message, context: Context) -> Message:
            self.asked += 1
            party, client = own(context)
            server_round, new = read_rows_request(message)
            self.called_new.append((party, server_round, new))
            if (party, server_round) in self.mute:
                raise RuntimeError("still reading")
            return rows_reply(message, Held(client.train.ids, client.test.ids))

        @app.train(TRAIN_SPLIT.removeprefix("train."))
        def step(message: Message, context: Context) -> Message:
            party, client = own(context)
            request, turn = read_step(message), self.turn[party]
            self.turn[party] += 1
            empty = self.spoil(party, turn, Message(RecordDict({"config": ConfigRecord({})}), reply_to=message))
            if empty.content.array_records:
                return empty
            moment = request.server_round, request.step
            embeddings = client.step(request.gradient, request.rows, moment, torch.Generator())
            return embeddings_reply(message, {"embeddings": embeddings})

        @app.evaluate(EVALUATE_SPLIT.removeprefix("evaluate."))
        def evaluate(message: Message, context: Context) -> Message:
            request = read_evaluation(message)
            asked = EvaluationRows(request.rows, request.attacked, request.probe)
            return embeddings_reply(message, own(context)[1].evaluate(request.gradient, asked, torch.Generator()))

        return InlineGrid(app, PARTIES, {})


def course(**options) -> Course:
    labels = {
        name: Records(torch.arange(count), features(count, seed)[1])
        for name, count, seed in (("train", ROWS, 1), ("test", TESTS, 2))
    }
    return Course(**labels, **{"num_parties": PARTIES, "num_classes": 2, "batch_size": 10, **options})


def split_nn(min_replies: int = 1, guard=None, **options) -> SplitNN:
    cohort = NumberedClients(PARTIES, PARTIES)
    given = {"embedding_size": SIZE, "hidden": 8, "top_learning_rate": 0.02, **options}
    return SplitNN(cohort, min_replies, 0, course(), guard, **given)


def run(parties: Parties, strategy: SplitNN, rounds: int) -> list[float]:
    losses: list[float] = []
    strategy.start(
        parties.grid(),
        strategy.initial(),
        num_rounds=rounds,
        evaluate_fn=lambda server_round, arrays: losses.extend(strategy.losses if server_round else []),
    )
    return losses


SILENT = {(1, 2), (1, 3), (2, 7), (0, 9)}  # (party, step); the last one is the last step of a round


def away(party: int, turn: int, reply: Message) -> Message:
    if (party, turn) in SILENT:
        raise RuntimeError("away")
    return reply


class Silent(HonestParty):
    """A party in one process that does not answer the same steps."""

    number, turn, silent = 0, 0, SILENT

    def step(self, gradient, ids):
        turn, self.turn = self.turn, self.turn + 1
        return None if (self.number, turn) in self.silent else super().step(gradient, ids)


def test_blocks_of_the_silent_are_masked_and_counted_as_without_an_engine() -> None:
    strategy, parties = split_nn(), Parties(away)
    losses = run(parties, strategy, 3)
    assert strategy.account is not None
    others = [Silent(records(party), PartyWork(bottom, sgd)) for party, bottom in enumerate(bottoms())]
    for number, party in enumerate(others):
        party.number = number
    fresh = split_nn()
    order = [
        rows for server_round in (1, 2, 3) for rows in batches(ROWS, 10, 1.0, generator(0, "batches", server_round))
    ]
    done = train_parties(others, fresh.top, features(ROWS, 1)[1], order, torch.Generator())
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(done.losses), atol=1e-6, rtol=0)
    assert done.missed.tolist() == [1, 2, 1]
    assert losses[-1] < losses[0]
    for client, other in zip(parties.clients, others):
        for mine, theirs in zip(client.work.bottom.parameters(), other.work.bottom.parameters()):
            torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)


def test_the_account_has_of_each_the_first_reason_and_the_number_of_steps() -> None:
    strategy = split_nn()
    run(Parties(away), strategy, 1)
    assert strategy.account is not None
    [drop] = strategy.account.dropped
    assert (drop["client"], drop["steps"]) == (1, 2)
    assert str(drop["reason"]).endswith("away")
    assert strategy.account.sampled == [0, 1, 2]
    assert strategy.account.train_loss == pytest.approx(sum(strategy.losses) / 5)


def test_the_figures_are_those_of_the_network_after_the_round() -> None:
    strategy, parties = split_nn(), Parties()
    run(parties, strategy, 2)
    embeddings = torch.stack([client.work.embed(client.test.x) for client in parties.clients], dim=1)
    logits, y = strategy.top.top(embeddings), features(TESTS, 2)[1]
    assert strategy.figures["loss"] == pytest.approx(float(F.cross_entropy(logits, y).detach()))
    assert strategy.figures["clean_data_accuracy"] == float((logits.argmax(dim=1) == y).double().mean())
    assert strategy.figures["loss"] < 0.6


def test_parties_are_asked_once_what_they_hold_and_a_foreign_sample_is_named() -> None:
    parties = Parties()
    run(parties, split_nn(), 3)
    assert parties.asked == PARTIES
    wrong = Parties()
    wrong.clients[1] = EmbeddingClient(
        records(1, ids=torch.arange(ROWS) + 1), wrong.clients[1].test, wrong.clients[1].work
    )
    with pytest.raises(RunStopped, match=r"client 1 holds other samples than the server: it lacks training sample 0"):
        run(wrong, split_nn(), 1)
    assert wrong.turn == [0, 0, 0]


def test_who_does_not_say_what_it_holds_is_masked_until_it_has_said_it() -> None:
    mute, accounts = frozenset({(1, 1), (1, 2)}), []
    strategy, parties = split_nn(), Parties(mute=mute)
    losses: list[float] = []

    def look(server_round, arrays):
        if server_round:
            losses.extend(strategy.losses)
            accounts.append(strategy.account.dropped)

    strategy.start(parties.grid(), strategy.initial(), num_rounds=3, evaluate_fn=look)
    assert parties.turn == [15, 5, 15]  # nobody asks the mute one for an embedding
    # The same as where it is away in the first two rounds.
    others = [Silent(records(party), PartyWork(bottom, sgd)) for party, bottom in enumerate(bottoms())]
    for number, party in enumerate(others):
        party.number, party.silent = number, {(1, turn) for turn in range(10)}
    order = [
        rows for server_round in (1, 2, 3) for rows in batches(ROWS, 10, 1.0, generator(0, "batches", server_round))
    ]
    done = train_parties(others, split_nn().top, features(ROWS, 1)[1], order, torch.Generator())
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(done.losses), atol=1e-6, rtol=0)
    told = [[(drop["client"], drop["steps"]) for drop in each] for each in accounts]
    assert told == [[(1, 6)], [(1, 6)], []]  # five steps and the evaluation
    assert "it did not say which samples it holds: " in accounts[0][0]["reason"]
    assert accounts[0][0]["reason"].endswith("still reading")
    assert parties.called_new == [(0, 1, True), (1, 1, True), (2, 1, True), (1, 2, True), (1, 3, True)]


def test_where_too_few_say_what_they_hold_the_run_stops_before_a_step() -> None:
    parties = Parties(mute=frozenset({(1, 1)}))
    with pytest.raises(RunStopped, match=r"step 1 of round 1 has 2 usable .* needs 3 \(it did not say .*still reading"):
        run(parties, split_nn(min_replies=3), 1)


def test_in_a_run_that_is_resumed_nobody_is_new() -> None:
    parties, strategy = Parties(), split_nn()
    strategy.configure_train(2, strategy.initial(), ConfigRecord(), parties.grid())
    assert parties.called_new == [(0, 2, False), (1, 2, False), (2, 2, False)]


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"embeddings": torch.zeros(10, SIZE + 1)}, "array embeddings has shape (10, 5) instead of (10, 4)"),
        ({"embeddings": torch.zeros(9, SIZE)}, "array embeddings has shape (9, 4) instead of (10, 4)"),
        ({"embeddings": torch.full((10, SIZE), torch.nan)}, "values that are not finite"),
        ({"embeddings": torch.zeros(10, SIZE, dtype=torch.float64)}, "has dtype float64 instead of float32"),
        ({"other": torch.zeros(10, SIZE)}, "missing array embeddings"),
        ({"embeddings": torch.zeros(10, SIZE), "true": torch.zeros(1, SIZE)}, "unexpected array true"),
    ],
)
def test_a_broken_reply_is_refused_alone(arrays: dict[str, Tensor], reason: str) -> None:
    def spoil(party: int, turn: int, reply: Message) -> Message:
        if party == 2:
            reply.content = RecordDict({"arrays": to_arrays(arrays)})
        return reply

    strategy = split_nn()
    run(Parties(spoil), strategy, 1)
    assert strategy.account is not None
    [drop] = strategy.account.dropped
    assert (drop["client"], drop["steps"]) == (2, 5)
    assert re.search(re.escape(reason), str(drop["reason"]))


def test_too_few_replies_stop_the_run_in_the_step() -> None:
    with pytest.raises(RunStopped, match=r"step 3 of round 1 has 2 usable replies and needs 3 \(.*away\)"):
        run(Parties(away), split_nn(min_replies=3), 1)


def test_the_top_model_goes_on_from_its_arrays_and_memory() -> None:
    whole = run(Parties(), split_nn(), 4)
    parties, first, second = Parties(), split_nn(), split_nn()
    grid = parties.grid()
    result = first.start(grid, first.initial(), num_rounds=2)
    second.memory = first.memory
    losses: list[float] = []
    arrays = result.arrays
    for server_round in (3, 4):
        replies = grid.send_and_receive(second.configure_train(server_round, arrays, ConfigRecord(), grid))
        arrays, _ = second.aggregate_train(server_round, replies)
        grid.send_and_receive(second.configure_evaluate(server_round, arrays, ConfigRecord(), grid))
        losses += second.losses
    torch.testing.assert_close(torch.tensor(whole[10:]), torch.tensor(losses), atol=1e-6, rtol=0)
    assert set(to_tensors(arrays)) == {"linear.weight", "linear.bias", "logits.weight", "logits.bias"}


def test_a_guard_acts_and_its_figures_are_means_over_the_steps() -> None:
    strategy = split_nn(guard=GradientNoise(variance=1.0))
    run(Parties(), strategy, 1)
    assert strategy.account is not None
    assert 0.5 < strategy.account.defense["noise_share"] < 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"embedding_size": 0}, "embedding_size >= 1"),
        ({"embedding_size": 10**14}, "no room for a top model of embedding_size = 10+ and hidden = 8"),
        ({"hidden": 10**30}, "no room for a top model of embedding_size = 4 and hidden = 10+"),
        ({"hidden": 0}, "hidden >= 1"),
        ({"local_steps": 0}, "local_steps >= 1"),
        ({"top_learning_rate": float("nan")}, "top_learning_rate > 0"),
        ({"min_replies": 0}, "min_replies is at least 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        split_nn(**options)


def test_rounds_of_part_of_a_pass_and_of_several() -> None:
    assert [len(batches(ROWS, 12, passes, torch.Generator())) for passes in (0.3, 1.0, 2.5)] == [2, 5, 13]
    rows = batches(ROWS, 12, 2.0, torch.Generator().manual_seed(0))
    assert sorted(torch.cat(rows[:5]).tolist()) == sorted(torch.cat(rows[5:]).tolist()) == list(range(ROWS))
    for bad in ((0, 1, 1.0), (1, 0, 1.0), (1, 1, 0.0), (1, 1, float("inf"))):
        with pytest.raises(ValueError, match="vertical learning needs"):
            batches(*bad, torch.Generator())
