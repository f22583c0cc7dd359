"""A model keeps its own precision through the server; what does not fit into it is a sentence, not an infinity."""

import re
from functools import partial

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord
from flwr.serverapp.strategy import FedAvg as FlowersFedAvg

from thornbed.defenses.aggregation.krum import krum
from thornbed.defenses.aggregation.median import median
from thornbed.strategies import Curious, FedAvg, InvariantAggregation, NumberedClients, RunStopped


def a_round(strategy, grid, start):
    """Return the new model as arrays, whose dtypes are those of the one before."""
    arrays = ArrayRecord({name: Array(np.asarray(values)) for name, values in start.items()})
    replies = list(grid.send_and_receive(strategy.configure_train(1, arrays, ConfigRecord(), grid)))
    new, _ = strategy.aggregate_train(1, replies)
    assert [(name, array.dtype) for name, array in new.items()] == [
        (name, array.dtype) for name, array in arrays.items()
    ]
    return {name: array.numpy() for name, array in new.items()}


def moving(examples=1, **steps):
    """A client that adds a step to every array that is named, in that array's own precision."""

    def reply(model):
        moved = {name: (model[name] + step).astype(model[name].dtype) for name, step in steps.items()}
        return {**model, **moved}, {"num-examples": examples, "train_loss": 0.5}

    return reply


OURS = {
    "fedavg": partial(FedAvg),
    "median": partial(FedAvg, rule=median),
    "krum": partial(FedAvg, rule=partial(krum, num_byzantine=0)),
    "invariant": InvariantAggregation,
    "curious": lambda: Curious(FedAvg(), lambda sighting: None),
}


@pytest.mark.parametrize("name", OURS)
def test_steps_of_a_float64_model_arrive_as_under_flowers_fedavg(federation, name):
    start = {"w": np.array([1.0, -2.0]), "norm.running_mean": np.array([3.0])}
    clients = [moving(examples, w=1e-9, **{"norm.running_mean": 1e-9}) for examples in (1, 2, 4)]
    flowers = a_round(FlowersFedAvg(), federation(clients), start)
    for which in start:
        assert (flowers[which] - start[which]) == pytest.approx(1e-9, rel=1e-6)
    ours = a_round(OURS[name](), federation(clients), start)
    for which in start:
        np.testing.assert_allclose(ours[which], flowers[which], rtol=1e-15)


def test_claims_of_a_float64_model_are_not_rounded_to_float32(federation):
    """Three sevenths in float32 are 1e-8 off: of a step of 1 that is more than a step of 1e-9."""
    clients = [moving(3, w=1.0), moving(4, w=0.0)]
    assert a_round(FedAvg(), federation(clients), {"w": np.zeros(1)})["w"][0] == pytest.approx(3 / 7, rel=1e-15)


@pytest.mark.parametrize("name", OURS)
def test_a_float16_model_is_aggregated_in_float32(federation, name):
    """Sums in float16 would be infinite: three models of 30000 are 90000."""
    start = {"w": np.array([29000.0], np.float16), "norm.running_var": np.array([60000.0], np.float16)}
    clients = [moving(w=np.float16(992), **{"norm.running_var": np.float16(0)})] * 3
    new = a_round(OURS[name](), federation(clients), start)
    assert {which: values.tolist() for which, values in new.items()} == {"w": [29984.0], "norm.running_var": [60000.0]}


def test_a_float16_model_that_would_overflow_is_refused_with_the_parameter(federation):
    def far(updates, weights):
        assert updates.dtype == torch.float32
        return torch.full((3,), 5000.0)

    start = {"a": np.array([1.0], np.float16), "w": np.array([64000.0, 1.0], np.float16)}
    with pytest.raises(RunStopped, match=r"1 of 2 values of w would not be finite in float16; the updates, or options"):
        a_round(FedAvg(rule=far), federation([moving(w=1.0)] * 2), start)


def test_a_model_of_several_precisions_keeps_each(federation):
    start = {"half": np.array([1.0], np.float16), "single": np.array([1.0], np.float32), "double": np.array([1.0])}
    clients = [moving(half=0.5, single=0.25, double=1e-9)] * 2
    new = a_round(FedAvg(rule=median), federation(clients), start)
    assert [values.tolist() for values in new.values()] == [[1.5], [1.25], [1 + 1e-9]]


def test_a_float32_array_that_would_overflow_beside_a_float64_one_is_refused(federation):
    start = {"single": np.float32([3e38]), "double": np.array([1.0])}
    strategy = FedAvg(rule=lambda updates, weights: torch.full((2,), 3.4e38, dtype=torch.float64))
    with pytest.raises(RunStopped, match="1 of 1 values of single would not be finite in float32"):
        a_round(strategy, federation([moving()] * 2), start)


def test_integers_and_booleans_stay(federation):
    start = {"w": np.zeros(1), "count": np.array(3, np.uint8), "mask": np.array([True]), "big": np.array(2**62 + 1)}
    new = a_round(FedAvg(), federation([moving(w=1.0, count=np.uint8(9), big=5)] * 2), start)
    assert [values.tolist() for values in new.values()] == [[1.0], 3, [True], 2**62 + 1]


@pytest.mark.parametrize("dtype", [np.complex64, np.longdouble, "<U2"])
def test_a_dtype_that_nothing_here_aggregates_is_refused_before_it_is_sent(federation, dtype):
    arrays = ArrayRecord({"w": Array(np.zeros(1)), "odd": Array(np.zeros(2, dtype))})
    said = f"array odd is {np.dtype(dtype)}: arrays of float16, float32, float64 are aggregated"
    with pytest.raises(ValueError, match=re.escape(said)):
        FedAvg().configure_train(1, arrays, ConfigRecord(), federation([moving()] * 2))


def test_a_dtype_without_a_name_in_numpy_is_refused_too(federation):
    odd = Array(dtype="bfloat16", shape=(1,), stype="numpy.ndarray", data=b"??")
    with pytest.raises(ValueError, match="array odd is bfloat16"):
        FedAvg().configure_train(1, ArrayRecord({"odd": odd}), ConfigRecord(), federation([moving()] * 2))


@pytest.mark.parametrize(("which", "said"), [("w", "values"), ("norm.running_var", "statistics")])
@pytest.mark.parametrize("size", [1e39, -1e300])
def test_float64_that_would_overflow_inside_a_rule_is_dropped_alone(federation, which, said, size):
    start = {"w": np.zeros(2), "norm.running_var": np.zeros(1)}
    strategy = FedAvg(NumberedClients(3, 3), rule=median)
    new = a_round(strategy, federation([moving(w=1.0), moving(**{which: size}), moving(w=1.0)]), start)
    assert new["w"].tolist() == [1.0, 1.0]
    assert strategy.account.dropped == [{"client": 1, "reason": f"{said} beyond 3.40282e+38, the largest float32"}]


def test_the_largest_float32_is_taken_in_float64(federation):
    largest = float(np.finfo(np.float32).max)
    clients = [moving(w=largest), moving(w=-largest), moving(w=1.0)]
    assert a_round(FedAvg(rule=median), federation(clients), {"w": np.zeros(1)})["w"].tolist() == [1.0]
