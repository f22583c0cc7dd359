"""FedAvg on made clients: the arithmetic, and one test for every kind of broken reply."""

from functools import partial

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from thornbed.defenses.aggregation.fedavg import fedavg
from thornbed.defenses.aggregation.krum import krum
from thornbed.defenses.aggregation.median import median
from thornbed.defenses.aggregation.sign_sgd import sign_sgd
from thornbed.strategies import FedAvg, InvariantAggregation, NumberedClients, RunStopped

START = ArrayRecord({"w": Array(np.array([1.0, 2.0], dtype=np.float32)), "n": Array(np.array(3))})


def plus(step, examples=1):
    return lambda model: ({**model, "w": model["w"] + np.float32(step)}, {"num-examples": examples, "train-loss": 1.0})


def one_round(strategy, grid):
    replies = grid.send_and_receive(strategy.configure_train(1, START, ConfigRecord(), grid))
    arrays, _ = strategy.aggregate_train(1, replies)
    return arrays["w"].numpy()


def broken(**changes):
    """A client whose honest reply is changed in one thing."""

    def reply(model):
        arrays, metrics = plus(100.0)(model)
        arrays, metrics = dict(arrays), dict(metrics)
        arrays.update(changes.get("arrays", {}))
        metrics.update(changes.get("metrics", {}))
        for name in changes.get("without", ()):
            arrays.pop(name, None)
            metrics.pop(name, None)
        return arrays, metrics

    return reply


def test_the_mean_is_weighted_by_the_examples(federation):
    grid = federation([plus(1.0, 1), plus(2.0, 3)])
    strategy = FedAvg(NumberedClients(2, 2))
    assert one_round(strategy, grid) == pytest.approx([2.75, 3.75])
    assert strategy.account.sampled == [0, 1]
    assert strategy.account.train_loss == 1.0


def test_any_rule_takes_the_place_of_the_mean(federation):
    grid = federation([plus(1.0), plus(2.0), plus(1000.0)])
    assert one_round(FedAvg(NumberedClients(3, 3), rule=median), grid) == pytest.approx([3.0, 4.0])


def test_invariant_aggregation_masks_what_clients_disagree_about(federation):
    def client(first, second):
        step = np.array([first, second], dtype=np.float32)
        return lambda model: ({**model, "w": model["w"] + step}, {"num-examples": 1})

    grid = federation([client(1, 1), client(1, -1), client(1, 1), client(1, -1)])
    strategy = InvariantAggregation(NumberedClients(4, 4), tau=0.2, alpha=0.25)
    assert one_round(strategy, grid).tolist() == [2.0, 2.0]
    assert strategy.account.defense["masked_share"] == 0.5


def raising(model):
    raise ValueError("the disk is full")


NAN = np.array([np.nan, 0], dtype=np.float32)


def with_bytes(data):
    """A client whose array has the right record and any bytes behind it."""
    bad = Array(dtype="float32", shape=(2,), stype="numpy.ndarray", data=data)
    arrays = ArrayRecord({"w": bad, "n": START["n"]})
    return lambda model: RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})})


def header(text):
    line = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line + bytes(8)


BROKEN = {
    "a header that is no dictionary": (with_bytes(header("{[]:1}")), "array w cannot be read"),
    "a header of mixed keys": (with_bytes(header("{1: 2, 'shape': 3}")), "array w"),
    "a header that is not closed": (with_bytes(header("{'descr': (((")), "array w"),
    "a header that nests": (with_bytes(header("(" * 110)), "array w"),
    "more examples than there can be": (broken(metrics={"num-examples": 1e308}), "num-examples is 1e+308"),
    "an error": (raising, "the disk is full"),
    "nan": (broken(arrays={"w": NAN}), "not finite"),
    "inf": (broken(arrays={"w": np.array([np.inf, 0], dtype=np.float32)}), "not finite"),
    "missing array": (broken(without=["w"]), "missing array w"),
    "extra array": (broken(arrays={"v": np.zeros(1, dtype=np.float32)}), "unexpected array v"),
    "wrong shape": (broken(arrays={"w": np.zeros(3, dtype=np.float32)}), r"shape (3,) instead of (2,)"),
    "wrong dtype": (broken(arrays={"w": np.zeros(2)}), "dtype float64 instead of float32"),
    "zero examples": (broken(metrics={"num-examples": 0}), "num-examples is 0"),
    "negative examples": (broken(metrics={"num-examples": -5}), "num-examples is -5"),
    "nan examples": (broken(metrics={"num-examples": float("nan")}), "num-examples is nan"),
    "infinite examples": (broken(metrics={"num-examples": float("inf")}), "num-examples is inf"),
    "no examples": (broken(without=["num-examples"]), "no number num-examples"),
    "a list of examples": (broken(metrics={"num-examples": [1, 2]}), "no number num-examples"),
    "no records": (lambda model: RecordDict(), "0 array records"),
    "two array records": (
        lambda model: RecordDict({"a": ArrayRecord(), "b": ArrayRecord(), "m": MetricRecord({"num-examples": 1})}),
        "2 array records",
    ),
    "junk bytes": (
        lambda model: RecordDict(
            {
                "arrays": ArrayRecord(
                    {"w": Array(dtype="float32", shape=(2,), stype="numpy.ndarray", data=b"junk"), "n": START["n"]}
                ),
                "metrics": MetricRecord({"num-examples": 1}),
            }
        ),
        "array w cannot be read",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_reply_is_dropped_alone_and_counted(federation, kind):
    client, words = BROKEN[kind]
    strategy = FedAvg(NumberedClients(3, 3))
    assert one_round(strategy, federation([plus(1.0), client, plus(3.0)])) == pytest.approx([3.0, 4.0])
    [drop] = strategy.account.dropped
    assert drop["client"] == 1
    assert words in drop["reason"]


def test_below_the_minimum_the_run_stops_and_says_why(federation):
    strategy = FedAvg(NumberedClients(3, 3), 2)
    with pytest.raises(RunStopped, match=r"round 1 has 1 usable replies and needs 2 .*disk is full"):
        one_round(strategy, federation([plus(1.0), raising, raising]))


def test_a_rule_that_refuses_what_is_left_stops_the_run(federation):
    strategy = FedAvg(NumberedClients(5, 5), rule=partial(krum, num_byzantine=1))
    with pytest.raises(RunStopped, match=r"krum needs n >= 2f \+ 3: n = 4, f = 1"):
        one_round(strategy, federation([plus(1.0)] * 4 + [raising]))


def test_a_model_that_would_not_be_finite_stops_the_run(federation):
    def huge(updates, weights):
        return torch.tensor([float("nan"), 1.0])

    with pytest.raises(
        RunStopped, match="round 1 cannot be aggregated: 1 of 2 values of w would not be finite in float32"
    ):
        one_round(FedAvg(NumberedClients(2, 2), rule=huge), federation([plus(1.0)] * 2))


def test_the_order_of_arrival_changes_nothing(federation):
    steps = torch.randn(7, generator=torch.Generator().manual_seed(0)).tolist()
    strategy = FedAvg(NumberedClients(7, 7))
    grid = federation([plus(step) for step in steps])
    replies = list(grid.send_and_receive(strategy.configure_train(1, START, ConfigRecord(), grid)))
    one, _ = strategy.aggregate_train(1, replies)
    other, _ = strategy.aggregate_train(1, replies[::-1])
    assert one["w"].data == other["w"].data


def test_integers_of_the_model_stay_as_the_server_has_them(federation):
    strategy = FedAvg(NumberedClients(1, 1))
    grid = federation([lambda model: ({**model, "n": np.array(99)}, {"num-examples": 1})])
    replies = grid.send_and_receive(strategy.configure_train(1, START, ConfigRecord(), grid))
    assert strategy.aggregate_train(1, replies)[0]["n"].numpy() == 3


NORMED = ArrayRecord(
    {
        "w": Array(np.array([1.0, 2.0], dtype=np.float32)),
        "norm.running_mean": Array(np.array([0.0, 10.0], dtype=np.float32)),
        "norm.num_batches_tracked": Array(np.array(3)),
        "norm.running_var": Array(np.array(1.0, dtype=np.float32)),
    }
)


def measuring(step, mean, var, examples=1):
    """A client whose layers measured something, whatever its parameters learned."""

    def reply(model):
        measured = {
            "norm.running_mean": np.array(mean, dtype=np.float32),
            "norm.running_var": np.array(var, dtype=np.float32),
            "norm.num_batches_tracked": np.array(99),
        }
        return {**model, "w": model["w"] + np.float32(step), **measured}, {"num-examples": examples}

    return reply


FIVE = [
    measuring(1.0, [1.0, -5.0], 2.0, 1),
    measuring(1.0, [2.0, 1e6], 4.0, 1),
    measuring(1.0, [6.0, 7.0], 3.0, 1),
    measuring(-1.0, [-1e6, 8.0], 9.0, 1),
    measuring(-1.0, [3.0, 9.0], 1e9, 6),
]


def next_model(strategy, grid, start=NORMED):
    """Return the new model as lists, in the order of its arrays, and check that they are the same arrays."""
    replies = grid.send_and_receive(strategy.configure_train(1, start, ConfigRecord(), grid))
    arrays, _ = strategy.aggregate_train(1, replies)
    assert [(name, array.dtype, array.shape) for name, array in arrays.items()] == [
        (name, array.dtype, array.shape) for name, array in start.items()
    ]
    return [array.numpy().tolist() for array in arrays.values()]


@pytest.mark.parametrize(
    ("rule", "w"),
    [
        (partial(sign_sgd, step_size=0.5), [1.5, 2.5]),
        (partial(krum, num_byzantine=1), [2.0, 3.0]),
        (median, [2.0, 3.0]),
        (lambda updates, weights: updates.mean(dim=0), [1.2, 2.2]),
    ],
    ids=["sign_sgd", "krum", "median", "a rule of somebody's own"],
)
def test_statistics_have_the_median_whatever_the_rule(federation, rule, w):
    strategy = FedAvg(NumberedClients(5, 5), rule=rule)
    model = next_model(strategy, federation(FIVE))
    assert model == [pytest.approx(w), [2.0, 8.0], 3, 4.0]
    if rule is median:
        assert strategy.account.defense == {"trimmed_per_tail": 2}
    else:
        assert "trimmed_per_tail" not in strategy.account.defense  # what happens to statistics is no act of the rule


@pytest.mark.parametrize("rule", [fedavg, partial(fedavg)], ids=["fedavg", "partial"])
def test_statistics_have_the_weighted_mean_under_fedavg(federation, rule):
    clients = [measuring(1.0, [1.0, 0.0], 2.0, 1), measuring(2.0, [5.0, 8.0], 4.0, 3)]
    model = next_model(FedAvg(NumberedClients(2, 2), rule=rule), federation(clients))
    assert model == [pytest.approx([2.75, 3.75]), [4.0, 6.0], 3, 3.5]


def test_a_rule_is_given_parameters_alone(federation):
    seen = []

    def noting(updates, weights):
        seen.append(updates.tolist())
        return updates[0]

    next_model(FedAvg(NumberedClients(5, 5), rule=noting), federation(FIVE))
    assert seen == [[[1.0, 1.0]] * 3 + [[-1.0, -1.0]] * 2]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", ["mean", "var"])
@pytest.mark.parametrize("rule", [fedavg, median], ids=["fedavg", "median"])
def test_a_statistic_that_is_not_finite_drops_its_reply_alone(federation, rule, place, bad):
    wrong = measuring(100.0, [bad, 0.0], 1.0) if place == "mean" else measuring(100.0, [0.0, 0.0], bad)
    grid = federation([measuring(1.0, [1.0, 2.0], 3.0), wrong, measuring(3.0, [3.0, 4.0], 5.0)])
    strategy = FedAvg(NumberedClients(3, 3), rule=rule)
    assert next_model(strategy, grid) == [pytest.approx([3.0, 4.0]), [2.0, 3.0], 3, 4.0]
    assert strategy.account.dropped == [{"client": 1, "reason": "statistics that are not finite"}]


def test_statistics_can_be_named(federation):
    start = ArrayRecord({"w": START["w"], "spread": Array(np.array([5.0], dtype=np.float32))})

    def spreading(value):
        return lambda model: ({"w": model["w"] + 1, "spread": np.array([value], np.float32)}, {"num-examples": 1})

    clients, rule = [spreading(value) for value in (6.0, 7.0, 1000.0)], partial(sign_sgd, step_size=0.25)
    named = FedAvg(NumberedClients(3, 3), rule=rule, statistics=["spread"])
    assert next_model(named, federation(clients), start) == [[1.25, 2.25], [7.0]]
    unnamed = FedAvg(NumberedClients(3, 3), rule=rule)
    assert next_model(unnamed, federation(clients), start) == [[1.25, 2.25], [5.25]]
    with pytest.raises(ValueError, match="there is none called spred"):
        next_model(FedAvg(NumberedClients(3, 3), statistics=["spred"]), federation(clients), start)


def test_what_the_superlink_says_of_a_lost_node_is_the_reason(federation, monkeypatch):
    """Flower answers for a node that went away with an error that names the SuperLink itself, node 1."""
    from flwr.app import Error, Message

    grid = federation([plus(1.0)] * 3)
    deliver = grid._deliver

    def lost(message):
        message_id = deliver(message)
        if message.metadata.dst_node_id == 3 and message.metadata.message_type == "train":
            request = Message(message.content, dst_node_id=3, message_type="train")
            grid._replies[message_id] = Message(Error(code=14, reason="Node Unavailable"), reply_to=request)
            grid._replies[message_id].metadata.__dict__["_src_node_id"] = 1
        return message_id

    monkeypatch.setattr(grid, "_deliver", lost)
    strategy = FedAvg(NumberedClients(3, 3))
    assert one_round(strategy, grid).tolist() == [2.0, 3.0]
    assert strategy.account.dropped == [{"client": 1, "reason": "no reply: Node Unavailable"}]


def test_what_defenses_on_clients_report_is_averaged_and_cannot_flood_the_records(federation):
    def telling(value, **more):
        def reply(model):
            arrays, metrics = plus(1.0)(model)
            return arrays, {**metrics, "defense-clipped_share": value, **more}

        return reply

    flood = {f"defense-{number}": 1.0 for number in range(1000)}
    strategy = FedAvg(NumberedClients(4, 4))
    one_round(strategy, federation([telling(1.0), telling(0.0), telling(float("nan")), telling(0.5, **flood)]))
    assert strategy.account.defense["clients_clipped_share"] == 0.5
    assert len(strategy.account.defense) <= 9
