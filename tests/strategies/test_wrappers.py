import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg as FlowersFedAvg

from thornbed.protocol.messages import train_message
from thornbed.strategies import Curious, FedAvg, NumberedClients, Resumed

START = {"w": np.array([1.0, 2.0], dtype=np.float32)}


def arrays():
    return ArrayRecord({name: Array(value) for name, value in START.items()})


def half(model):
    return {"w": model["w"] * np.float32(0.5)}, {"num-examples": 2}


def run(strategy, federation, rounds=3, behaviours=(half, half)):
    return strategy.start(federation(list(behaviours)), arrays(), num_rounds=rounds).arrays["w"].data


def test_a_curious_server_sees_everything_and_changes_nothing(federation):
    seen = []

    def look(sighting):
        seen.append((sighting.server_round, sighting.num_examples, sighting.received["w"].tolist()))
        sighting.received["w"].zero_()
        sighting.sent["w"].fill_(float("nan"))

    quiet = run(FedAvg(NumberedClients(2, 2)), federation)
    assert run(Curious(FedAvg(NumberedClients(2, 2)), look, every=2), federation) == quiet
    assert seen == [(1, 2.0, [0.5, 1.0])] * 2 + [(3, 2.0, [0.125, 0.25])] * 2


def test_a_curious_server_wraps_flowers_own_strategies_too(federation):
    seen = []
    strategy = FlowersFedAvg(fraction_evaluate=0.0)
    assert run(Curious(strategy, seen.append), federation) == run(FlowersFedAvg(fraction_evaluate=0.0), federation)
    assert len(seen) == 6


def test_a_curious_server_passes_broken_replies_on(federation):
    def raising(model):
        raise ValueError("no")

    def junk(model):
        bad = Array(dtype="float32", shape=(2,), stype="numpy.ndarray", data=b"junk")
        return RecordDict({"arrays": ArrayRecord({"w": bad}), "metrics": MetricRecord({"num-examples": 1})})

    def odd(model):
        return {"w": model["w"].astype("datetime64[s]")}, {"num-examples": 1}

    def longer(model):
        return {"w": np.zeros(3, dtype=np.float32)}, {"num-examples": 1}

    seen = []
    inner = FedAvg(NumberedClients(5, 5))
    run(Curious(inner, seen.append), federation, rounds=1, behaviours=(half, raising, junk, odd, longer))
    assert len(seen) == 1
    assert [drop["client"] for drop in inner.account.dropped] == [1, 2, 3, 4]


def of(*values):
    return ArrayRecord({"w": Array(np.array(values, dtype=np.float32))})


class Sending(FlowersFedAvg):
    """Sends what it is told to: by round, the records that each node gets, in a generator."""

    def __init__(self, sent):
        super().__init__(fraction_evaluate=0.0)
        self.sent = sent

    def configure_train(self, server_round, arrays, config, grid):
        for node, records in self.sent[server_round].items():
            message = train_message(of(0.0), ConfigRecord(), server_round, node)
            message.content = RecordDict(records)
            yield message

    def aggregate_train(self, server_round, replies):
        return None, None


def doubled(records):
    """A client that answers each array record of a message by its double."""
    return {name: of(*(2 * record["w"].numpy()).tolist()) for name, record in records.items()}


class Curiosity:
    """A curious server around `Sending`, whose replies come when the test wants; what it saw, by node."""

    def __init__(self, sent, grid):
        self.grid, self.seen = grid, []
        self.curious = Curious(Sending(sent), lambda seen: self.seen.append(seen))

    def send(self, server_round):
        messages = self.curious.configure_train(server_round, of(0.0), ConfigRecord(), self.grid)
        return list(self.grid.send_and_receive(messages))

    def shown(self, server_round, replies):
        self.seen.clear()
        self.curious.aggregate_train(server_round, replies)
        return {each.node_id: (each.sent["w"].tolist(), each.received["w"].tolist()) for each in self.seen}


@pytest.fixture
def curiosity(federation, monkeypatch):
    def make(sent, answer=doubled):
        grid = federation([None] * 3)

        def client(message, context):
            from flwr.app import Message

            records = answer(message.content.array_records)
            return Message(RecordDict({**records, "m": MetricRecord({"num-examples": 1})}), reply_to=message)

        monkeypatch.setattr(grid, "_client_app", client)
        return Curiosity(sent, grid)

    return make


def test_a_curious_server_sees_the_model_that_each_node_was_sent(curiosity):
    """Personalised models, of different shapes even."""
    made = curiosity({1: {2: {"arrays": of(1.0)}, 3: {"arrays": of(10.0)}, 4: {"arrays": of(5.0, 6.0)}}})
    assert made.shown(1, made.send(1)) == {
        2: ([1.0], [2.0]),
        3: ([10.0], [20.0]),
        4: ([5.0, 6.0], [10.0, 12.0]),
    }


def test_replies_that_come_later_are_seen_beside_what_they_answer(curiosity):
    sent = {
        1: {2: {"arrays": of(1.0)}, 3: {"arrays": of(1.0)}},
        2: {2: {"arrays": of(7.0)}},
        3: {3: {"arrays": of(9.0)}},
    }
    made = curiosity(sent)
    [quick, slow] = made.send(1)
    assert made.shown(1, [quick]) == {2: ([1.0], [2.0])}
    again = made.send(2)
    assert made.shown(2, [slow, *again]) == {3: ([1.0], [2.0]), 2: ([7.0], [14.0])}
    assert made.shown(3, made.send(3)) == {3: ([9.0], [18.0])}


def test_a_node_that_has_nothing_to_answer_shows_nothing(curiosity):
    made = curiosity({1: {2: {"arrays": of(1.0)}}, 2: {3: {"arrays": of(1.0)}}})
    replies = made.send(1)
    stranger = list(made.grid.send_and_receive([train_message(of(1.0), ConfigRecord(), 1, 4)]))
    assert made.shown(1, [*replies, *stranger]) == {2: ([1.0], [2.0])}
    assert made.shown(2, [*replies, *made.send(2)]) == {3: ([1.0], [2.0])}


def test_a_message_without_a_model_takes_the_place_of_one_that_was_not_answered(curiosity):
    made = curiosity({1: {2: {"arrays": of(1.0)}}, 2: {2: {}}}, lambda records: {"arrays": of(4.0)})
    made.send(1)
    assert made.shown(2, made.send(2)) == {}


def test_what_was_sent_is_seen_as_it_was_sent(curiosity):
    record = of(1.0)
    made = curiosity({1: {2: {"arrays": record}}})
    replies = made.send(1)
    record["w"] = of(99.0)["w"]
    assert made.shown(1, replies) == {2: ([1.0], [2.0])}


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ({"arrays": of(1.0), "control": of(3.0)}, {2: ([1.0], [2.0])}),
        ({"control": of(3.0), "arrays": of(1.0)}, {2: ([1.0], [2.0])}),
        ({"model": of(1.0)}, {2: ([1.0], [2.0])}),
        ({"model": of(1.0), "control": of(3.0)}, {}),
        ({}, {}),
    ],
    ids=lambda case: " and ".join(map(str, case)) or "none",
)
def test_the_model_is_the_record_of_that_name_or_the_only_one(curiosity, sent, shown):
    made = curiosity({1: {2: sent}})
    assert made.shown(1, made.send(1)) == shown


def test_a_reply_of_several_records_shows_the_one_called_arrays(curiosity):
    made = curiosity({1: {2: {"model": of(1.0)}}}, lambda records: {"control": of(3.0), "arrays": of(4.0)})
    assert made.shown(1, made.send(1)) == {2: ([1.0], [4.0])}
    made = curiosity({1: {2: {"model": of(1.0)}}}, lambda records: {"control": of(3.0), "other": of(4.0)})
    assert made.shown(1, made.send(1)) == {}


def test_resumed_goes_on_with_the_rounds_of_the_whole_run(federation):
    whole, later = [], []

    class Noting(FedAvg):
        def __init__(self, rounds):
            super().__init__(NumberedClients(2, 2))
            self.rounds = rounds

        def configure_train(self, server_round, *rest):
            self.rounds.append(server_round)
            return super().configure_train(server_round, *rest)

    run(Noting(whole), federation, rounds=5)
    run(Resumed(Noting(later), 3), federation, rounds=2)
    assert whole == [1, 2, 3, 4, 5]
    assert later == [4, 5]


def test_every_is_at_least_one():
    with pytest.raises(ValueError, match="every"):
        Curious(FedAvg(), print, every=0)
