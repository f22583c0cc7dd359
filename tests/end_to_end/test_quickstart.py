"""An app as `flwr new` makes one, with our strategies in the place of Flower's; its clients know nothing of them."""

import json
import logging
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from flwr.app import Context, RecordDict

from thornbed.flower_apps.engines.flower_command import environment
from thornbed.flower_apps.engines.inline import InlineGrid
from thornbed.flower_apps.engines.simulation import superlink_for_simulation

APP = Path(__file__).parent / "quickstart"
CLIENTS = 5


@pytest.fixture
def quickstart(monkeypatch, tmp_path):
    """Return a function that runs the app in this process, `(strategy) -> (final model, what clients told, app)`."""
    monkeypatch.syspath_prepend(str(APP))
    for name in [name for name in sys.modules if name.split(".")[0] == "quickstart"]:
        monkeypatch.delitem(sys.modules, name)
    from quickstart import client_app, server_app

    logging.getLogger("flwr").setLevel(logging.ERROR)
    declared = tomllib.loads((APP / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]

    def run(strategy):
        config = {**declared, "strategy": strategy, "output": str(tmp_path)}
        grid = InlineGrid(client_app.app, CLIENTS, config)
        context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config)
        server_app.app(grid, context)
        told = json.loads((tmp_path / "result.json").read_text())
        return torch.load(tmp_path / "final_model.pt"), told, server_app

    yield run
    for name in [name for name in sys.modules if name.split(".")[0] == "quickstart"]:
        del sys.modules[name]


@pytest.mark.parametrize("strategy", ["fedavg", "median", "krum", "invariant", "curious"])
def test_the_quickstart_learns_and_tells_what_its_clients_report(quickstart, strategy):
    _, told, app = quickstart(strategy)
    assert [set(each) for each in told["train"]] == [{"train_loss", "replies", "dropped"}] * 3
    assert [each["replies"] for each in told["train"]] == [CLIENTS] * 3
    assert told["train"][0]["train_loss"] > 1.2 * told["train"][-1]["train_loss"] > 0
    assert [set(each) for each in told["evaluate"]] == [{"eval_loss", "eval_acc"}] * 3
    assert told["evaluate"][-1]["eval_acc"] > 0.7
    assert len(app.seen) == (3 * CLIENTS if strategy == "curious" else 0)


def test_our_fedavg_ends_where_flowers_does(quickstart):
    (ours, told, _), (flowers, told_by_flowers, _) = quickstart("fedavg"), quickstart("flower")
    assert ours.keys() == flowers.keys()
    for name, tensor in ours.items():
        assert tensor.shape == flowers[name].shape, name
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, flowers[name], rtol=1e-4, atol=1e-5)
    for one, other in zip(told["train"], told_by_flowers["train"], strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)


@pytest.mark.slow
def test_flwr_run_takes_it_as_it_is(tmp_path):
    """In Flower's own simulation, from the command line, with a robust rule and two nodes that evaluate."""
    with superlink_for_simulation() as (home, _):
        command = ["flwr", "run", str(APP), "thornbed", "--stream", "--federation-config", "num-supernodes=4"]
        command += ["--run-config", f'strategy="invariant" num-server-rounds=2 output={json.dumps(str(tmp_path))}']
        done = subprocess.run(command, env=environment(home), cwd=home, capture_output=True, text=True, check=False)
    assert (tmp_path / "result.json").exists(), done.stdout[-3000:] + done.stderr[-3000:]
    told = json.loads((tmp_path / "result.json").read_text())
    assert [each["replies"] for each in told["train"]] == [4, 4]
    assert told["train"][1]["train_loss"] < told["train"][0]["train_loss"]
    assert len(told["evaluate"]) == 2
    assert 0 <= told["evaluate"][1]["eval_acc"] <= 1
    assert torch.load(tmp_path / "final_model.pt")["fc.weight"].shape == (10, 128)
