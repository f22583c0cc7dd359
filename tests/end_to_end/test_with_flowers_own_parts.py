"""Our clients under Flower's strategies: a stock FedAvg and ours end in the same model."""

import logging

import pytest
import torch
from flwr.serverapp.strategy import FedAvg as FlowersFedAvg

from thornbed.flower_apps.client_app import app
from thornbed.flower_apps.engines.inline import InlineGrid
from thornbed.flower_apps.resolving import resolve
from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun
from thornbed.flower_apps.settings import settings_from
from thornbed.protocol.vector import to_arrays, to_tensors
from thornbed.strategies import FedAvg, NumberedClients


@pytest.fixture
def settings():
    values = {"model": "mlp(hidden=(16,))", "num-clients": 4, "partition": "iid", "rounds": 2, "attack": "sign_flip"}
    return resolve(settings_from(values))


def final(strategy, settings):
    logging.getLogger("flwr").setLevel(logging.ERROR)
    grid = InlineGrid(app, settings.num_clients, settings.to_run_config())
    first = HorizontalRun(settings).new_model().state_dict()
    return to_tensors(strategy.start(grid, to_arrays(first), num_rounds=2).arrays)


def test_flowers_fedavg_drives_our_clients(settings):
    ours = final(FedAvg(NumberedClients(4, 4, seed=settings.seed)), settings)
    flowers = final(FlowersFedAvg(fraction_evaluate=0.0), settings)
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, flowers[name], rtol=1e-4, atol=1e-6)


def test_our_clients_evaluate_for_strategies_that_ask(settings):
    strategy = FlowersFedAvg(fraction_evaluate=1.0)
    grid = InlineGrid(app, settings.num_clients, settings.to_run_config())
    first = HorizontalRun(settings).new_model().state_dict()
    metrics = strategy.start(grid, to_arrays(first), num_rounds=1).evaluate_metrics_clientapp[1]
    assert 0 <= metrics["accuracy"] <= 1
    assert metrics["loss"] > 0
