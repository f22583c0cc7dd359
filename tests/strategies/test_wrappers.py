import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import FedAvg as FlowersFedAvg

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
        from flwr.app import MetricRecord, RecordDict

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
