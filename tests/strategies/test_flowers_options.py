"""The options of Flower's FedAvg mean here what they mean there, and no client spoils what the others report."""

import math

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg as FlowersFedAvg

from thornbed.defenses.aggregation.median import median
from thornbed.flower_apps.engines.inline import InlineGrid
from thornbed.flower_apps.settings import plugins
from thornbed.flower_apps.settings.plugins import BadSpec
from thornbed.strategies import AnyNodes, Curious, FedAvg, InvariantAggregation, NumberedClients, median_metrics

START = ArrayRecord({"w": Array(np.zeros(2, np.float32))})


def grid_of(told, evaluated=None, keys=("arrays", "config", "metrics")):
    """Return a grid of clients that add 1 and report what `told` has for each, and `evaluated` when they are tested."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context):
        assert message.content.config_records[keys[1]]["server-round"] >= 1
        model = {name: Array(array.numpy() + np.float32(1)) for name, array in message.content[keys[0]].items()}
        metrics = MetricRecord(told[context.node_config["partition-id"]])
        return Message(RecordDict({keys[0]: ArrayRecord(model), keys[2]: metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context):
        assert message.content.config_records[keys[1]]["server-round"] >= 1
        own = evaluated[context.node_config["partition-id"]]
        if isinstance(own, Exception):
            raise own
        records = own if isinstance(own, RecordDict) else RecordDict({keys[2]: MetricRecord(own)})
        return Message(records, reply_to=message)

    return InlineGrid(app, len(told), {})


def trained(strategy, grid, rounds=1):
    return strategy.start(grid, START, num_rounds=rounds)


HONEST = [
    {"num-examples": 1, "train_loss": 1.0, "per_class": [1.0, 0.0]},
    {"num-examples": 3, "train_loss": 2.0, "per_class": [0.0, 1.0]},
    {"num-examples": 4, "train_loss": 4.0, "per_class": [0.5, 0.5]},
]


def test_what_clients_report_comes_back_as_under_flowers_fedavg():
    flowers = trained(FlowersFedAvg(fraction_evaluate=0.0), grid_of(HONEST)).train_metrics_clientapp[1]
    ours = trained(FedAvg(), grid_of(HONEST)).train_metrics_clientapp[1]
    assert flowers["train_loss"] == pytest.approx((1 + 6 + 16) / 8)
    assert {name: ours[name] for name in flowers} == {name: pytest.approx(value) for name, value in flowers.items()}
    assert set(ours) - set(flowers) == {"replies", "dropped"}
    assert (ours["replies"], ours["dropped"]) == (3, 0)


HOSTILE = {
    "a loss of NaN": {"train_loss": math.nan},
    "an infinite loss": {"train_loss": -math.inf},
    "a loss beyond every float": {"train_loss": 10**400},
    "a list for a number": {"train_loss": [2.0]},
    "a number for a list": {"per_class": 1.0},
    "a longer list": {"per_class": [1.0, 1.0, 1.0]},
    "an empty list": {"per_class": []},
    "a list with an infinity": {"per_class": [1.0, math.inf]},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_odd_metrics_are_left_out_alone_and_the_update_counts(kind, caplog):
    told = [*HONEST, {**HONEST[0], **HOSTILE[kind]}]
    strategy = FedAvg()
    metrics = trained(strategy, grid_of(told)).train_metrics_clientapp[1]
    assert metrics["train_loss"] == pytest.approx((1 + 6 + 16) / 8)
    assert metrics["per_class"] == pytest.approx([(1 + 2) / 8, (3 + 2) / 8])
    assert (metrics["replies"], metrics["dropped"]) == (4, 0)


def test_a_metric_that_is_missing_leaves_its_reply_out():
    told = [*HONEST, {"num-examples": 7}]
    assert trained(FedAvg(), grid_of(told)).train_metrics_clientapp[1]["train_loss"] == pytest.approx(23 / 8)


def test_what_few_report_is_in_no_record():
    told = [*HONEST, {**HONEST[0], **{f"own-{number}": 1e300 for number in range(1000)}}]
    metrics = trained(FedAvg(), grid_of(told)).train_metrics_clientapp[1]
    assert set(metrics) == {"train_loss", "per_class", "replies", "dropped"}
    assert metrics["train_loss"] == pytest.approx((1 + 6 + 16 + 1) / 9)


@pytest.mark.parametrize("examples", [2**53 + 2, 1e308, math.nan, -1, 0, 10**400, [1, 2], None])
def test_a_claim_that_is_no_count_drops_the_reply(examples):
    hostile = {"train_loss": 9.0, "per_class": [9.0, 9.0], **({} if examples is None else {"num-examples": examples})}
    metrics = trained(FedAvg(), grid_of([*HONEST, hostile])).train_metrics_clientapp[1]
    assert (metrics["replies"], metrics["dropped"]) == (3, 1)
    assert metrics["train_loss"] == pytest.approx(23 / 8)


def test_where_nobody_reports_what_can_be_averaged_the_round_goes_on():
    metrics = trained(FedAvg(), grid_of([{"num-examples": 1, "train_loss": math.nan}] * 3)).train_metrics_clientapp[1]
    assert dict(metrics) == {"replies": 3, "dropped": 0}


def test_a_huge_claim_does_not_lead_the_median_of_the_metrics():
    liar = {"num-examples": 2**53, "train_loss": 1e30, "per_class": [1e30, -1e30]}
    told = [*HONEST, HONEST[1], liar]
    robust = FedAvg(rule=median, train_metrics_aggr_fn=median_metrics)
    assert dict(trained(robust, grid_of(told)).train_metrics_clientapp[1]) == {
        "train_loss": 2.0,
        "per_class": [0.5, 0.5],
    }


def test_a_function_of_ones_own_sees_what_flowers_would_have_checked():
    seen = []

    def own(replies, weighted_by):
        seen.extend(replies)
        assert weighted_by == "num-examples"
        return MetricRecord({"worst": max(reply["metrics"]["train_loss"] for reply in replies)})

    told = [*HONEST, {"num-examples": 1}, {**HONEST[2], "train_loss": math.nan}, {**HONEST[0], "own": 5.0}]
    metrics = trained(FedAvg(train_metrics_aggr_fn=own), grid_of(told)).train_metrics_clientapp[1]
    assert dict(metrics) == {"worst": 4.0}
    assert [set(reply["metrics"]) for reply in seen] == [{"num-examples", "train_loss", "per_class"}] * 4
    assert [reply["arrays"]["w"].numpy().tolist() for reply in seen] == [[1.0, 1.0]] * 4


EVALUATED = [
    {"num-examples": 1, "eval_acc": 0.5},
    {"num-examples": 3, "eval_acc": 0.9},
    {"num-examples": 4, "eval_acc": 1.0},
]


@pytest.mark.parametrize(
    "make", [FedAvg, InvariantAggregation, lambda **options: Curious(FedAvg(**options), lambda sighting: None)]
)
def test_clients_evaluate_where_they_are_asked_to(make):
    flowers = trained(FlowersFedAvg(fraction_evaluate=1.0), grid_of(HONEST, EVALUATED), 2).evaluate_metrics_clientapp
    ours = trained(make(fraction_evaluate=1.0), grid_of(HONEST, EVALUATED), 2).evaluate_metrics_clientapp
    assert list(ours) == list(flowers) == [1, 2]
    assert dict(ours[2]) == {"eval_acc": pytest.approx(flowers[2]["eval_acc"])} == {"eval_acc": pytest.approx(7.2 / 8)}


def test_nobody_evaluates_unless_asked():
    assert trained(FedAvg(), grid_of(HONEST, [AssertionError("asked")] * 3)).evaluate_metrics_clientapp == {}


@pytest.mark.parametrize(
    "odd",
    [
        ValueError("no test data"),
        RecordDict(),
        RecordDict({"a": MetricRecord({"num-examples": 1}), "b": MetricRecord({"num-examples": 1})}),
        {"eval_acc": 0.0},
        {"eval_acc": math.nan, "num-examples": 5},
        {"eval_acc": 0.0, "num-examples": 1e300},
        {"eval_acc": [0.0], "num-examples": 5},
    ],
    ids=["error", "no record", "two records", "no examples", "nan", "too many examples", "list"],
)
def test_an_odd_evaluation_is_left_out_alone(odd):
    grid = grid_of([*HONEST, HONEST[0]], [*EVALUATED, odd])
    metrics = trained(FedAvg(fraction_evaluate=1.0), grid).evaluate_metrics_clientapp[1]
    assert dict(metrics) == {"eval_acc": pytest.approx(7.2 / 8)}


def test_an_evaluation_that_nobody_answers_ends_no_run():
    grid = grid_of(HONEST, [ValueError("no test data")] * 3)
    result = trained(FedAvg(fraction_evaluate=1.0), grid, 2)
    assert result.evaluate_metrics_clientapp == {}
    assert result.arrays["w"].numpy().tolist() == [2.0, 2.0]


def asked(strategy, nodes, what):
    grid = grid_of([HONEST[0]] * nodes, [EVALUATED[0]] * nodes)
    configure = strategy.configure_train if what == "train" else strategy.configure_evaluate
    return [message.metadata.dst_node_id for message in configure(1, START, ConfigRecord(), grid)]


@pytest.mark.parametrize("what", ["train", "evaluate"])
@pytest.mark.parametrize("nodes", [2, 5, 9, 10])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.29, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("least", [0, 1, 2])
def test_as_many_nodes_are_drawn_as_under_flowers_fedavg(what, nodes, fraction, least):
    options = {f"fraction_{what}": fraction, f"min_{what}_nodes": least, "min_available_nodes": 2}
    if fraction and not max(int(nodes * fraction), least):
        pytest.skip("Flower asks nobody and stops at the first round; here somebody is asked")
    flowers, ours = (asked(make(**options), nodes, what) for make in (FlowersFedAvg, FedAvg))
    assert len(ours) == len(flowers)
    assert len(set(ours)) == len(ours)


def test_draws_follow_from_seed_and_round_and_differ_for_training_and_evaluation():
    def draws(seed):
        made = FedAvg(seed=seed, fraction_train=0.5, fraction_evaluate=0.5)
        return [asked(made, 12, what) for what in ("train", "evaluate")]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)
    assert draws(1)[0] != draws(1)[1]


def test_a_share_of_nought_trains_nobody():
    result = trained(FedAvg(fraction_train=0.0, fraction_evaluate=1.0), grid_of(HONEST, EVALUATED), 2)
    assert result.train_metrics_clientapp == {}
    assert not result.arrays  # as under Flower's: no round has made any
    assert list(result.evaluate_metrics_clientapp) == [1, 2]


def test_fewer_nodes_than_are_to_be_available_are_named():
    strategy = FedAvg(min_available_nodes=4)
    strategy.cohort.wait_seconds = 0.1
    with pytest.raises(RuntimeError, match="4 clients are needed and 3 nodes are connected"):
        asked(strategy, 3, "train")


def test_records_are_called_what_the_options_say():
    told = [{"n": 1, "train_loss": 1.0}, {"n": 3, "train_loss": 2.0}]
    keys = {"weighted_by_key": "n", "arrayrecord_key": "model", "configrecord_key": "settings"}
    grid = grid_of(told, told, ("model", "settings", "numbers"))
    result = trained(FedAvg(fraction_evaluate=1.0, **keys), grid)
    assert result.train_metrics_clientapp[1]["train_loss"] == 1.75
    assert dict(result.evaluate_metrics_clientapp[1]) == {"train_loss": 1.75}
    strategy = FedAvg(NumberedClients(2, 2), **{**keys, "weighted_by_key": "examples"})
    assert strategy.options.weighted_by_key == "examples"


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        (
            {"fraction_fit": 0.5},
            TypeError,
            "has no option fraction_fit; it takes OWN, fraction_train, fraction_evaluate",
        ),
        ({"evaluate_fn": print}, TypeError, "has no option evaluate_fn; it takes"),
        ({"cohort": 0.5}, TypeError, "takes a cohort first, such as NumberedClients, .* by name: it was given 0.5"),
        ({"fraction_train": 1.5}, ValueError, r"fraction_train lies in \[0, 1\]: fraction_train = 1.5"),
        ({"fraction_evaluate": math.nan}, ValueError, r"fraction_evaluate lies in \[0, 1\]: fraction_evaluate = nan"),
        ({"fraction_train": "0.5"}, ValueError, r"fraction_train lies in \[0, 1\]: fraction_train = '0.5'"),
        ({"min_train_nodes": -1}, ValueError, "min_train_nodes is a whole number of nodes, 0 or more"),
        ({"min_evaluate_nodes": 1.5}, ValueError, "min_evaluate_nodes is a whole number of nodes"),
        ({"weighted_by_key": ""}, ValueError, "weighted_by_key is a name in a record"),
        ({"arrayrecord_key": "config"}, ValueError, "name two records of one message: both are 'config'"),
        ({"cohort": AnyNodes(), "fraction_train": 0.5}, ValueError, "fraction_train draws among all nodes"),
        ({"cohort": AnyNodes(), "min_train_nodes": 2}, ValueError, "min_train_nodes draws among all nodes"),
    ],
)
@pytest.mark.parametrize(
    ("make", "own"), [(FedAvg, "rule, seed, root_training, statistics"), (InvariantAggregation, "tau, alpha")]
)
def test_options_that_are_none_are_sentences(make, own, options, error, said):
    said = f"^{make.__name__} {said}" if "OWN" in said else said
    said = said.replace("OWN", own)
    with pytest.raises(error, match=said) as refused:
        make(**options)
    assert "\n" not in str(refused.value)


def test_no_command_line_names_them():
    with pytest.raises(BadSpec, match="invariant_aggregation has no option fraction_train"):
        plugins.load("strategy", "invariant_aggregation(fraction_train=0.5)")
