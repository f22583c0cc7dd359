"""The server app of the quickstart; `strategy` of the run config says whose strategy it is."""

import json
from functools import partial
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg as FlowersFedAvg

from quickstart.task import Net
from thornbed.defenses.aggregation.krum import krum
from thornbed.defenses.aggregation.median import median
from thornbed.strategies import Curious, FedAvg, InvariantAggregation

app = ServerApp()
seen: list[int] = []

STRATEGIES = {
    "flower": FlowersFedAvg,
    "fedavg": FedAvg,
    "median": partial(FedAvg, rule=median),
    "krum": partial(FedAvg, rule=partial(krum, num_byzantine=0)),
    "invariant": InvariantAggregation,
    "curious": lambda **options: Curious(FedAvg(**options), lambda sighting: seen.append(sighting.node_id)),
}


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds, and write what came of them where `output` says."""
    config = context.run_config
    torch.manual_seed(0)
    global_model = Net()
    arrays = ArrayRecord(global_model.state_dict())
    strategy = STRATEGIES[config["strategy"]](fraction_evaluate=config["fraction-evaluate"])
    result = strategy.start(
        grid=grid,
        initial_arrays=arrays,
        train_config=ConfigRecord({"lr": config["learning-rate"]}),
        num_rounds=config["num-server-rounds"],
    )
    folder = Path(config["output"])
    torch.save(result.arrays.to_torch_state_dict(), folder / "final_model.pt")
    told = {
        "train": [dict(each) for each in result.train_metrics_clientapp.values()],
        "evaluate": [dict(each) for each in result.evaluate_metrics_clientapp.values()],
    }
    (folder / "result.json").write_text(json.dumps(told))
