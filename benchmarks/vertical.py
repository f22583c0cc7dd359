"""Time a pass of SplitNN over Flower's messages beside the same joint network trained at one place.

    python benchmarks/vertical.py --data-dir DIR                 # mnist, inline
    python benchmarks/vertical.py --data-dir DIR --simulation    # one line more: Flower's virtual client engine

"Central" is plain PyTorch: one optimiser over all parameters, a forward pass per block, one loss, one backward pass;
its rows come in another order, which costs the same. The inline engine's pass is timed without its tests of the model.
Both learn with one thread. Figures are medians over the repeats, ratios are taken within a repeat.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from thornbed.experiments.runs import launch
from thornbed.flower_apps.resolving import resolve
from thornbed.flower_apps.schemes.vertical.run import VerticalRun
from thornbed.flower_apps.settings import Resolved, Settings
from thornbed.protocol.threads import one_thread
from thornbed.tasks.split.order import batches
from thornbed.tasks.split.top_model import two_layers


def settings(data_dir: str, clients: int, batch_size: int, rows: int, engine: str, output: Path) -> Resolved:
    """Return the settings of one pass."""
    return resolve(
        Settings(
            task=f"mnist(num_train={rows}, num_test=100)",
            strategy="split_nn",
            num_clients=clients,
            batch_size=batch_size,
            rounds=1,
            engine=engine,
            data_dir=data_dir,
            output=str(output),
        )
    )


def central(given: Resolved) -> float:
    """Return the seconds of a pass at one place."""
    run = VerticalRun(given)
    task = run.task
    parts = [run.records(client)[0].x for client in range(given.num_clients)]
    networks = [run.bottom_model(client) for client in range(given.num_clients)]
    top = two_layers(given.num_clients, run.embedding_size, task.num_classes)
    parameters = [each for network in (*networks, top) for each in network.parameters()]
    learner = torch.optim.Adam(parameters, lr=1e-3)
    labels = task.train.y
    order = batches(len(labels), given.batch_size, given.local_epochs, torch.Generator().manual_seed(0))
    with one_thread():
        started = time.perf_counter()
        for rows in order:
            learner.zero_grad(set_to_none=True)
            embedded = torch.stack([network(x[rows]) for network, x in zip(networks, parts)], dim=1)
            F.cross_entropy(top(embedded), labels[rows]).backward()
            learner.step()
        return time.perf_counter() - started


def federated(given: Resolved) -> float:
    """Return the seconds that the steps of the pass took, with their messages."""
    found: list[dict[str, float]] = []
    launch.start(launch.prepare(given), lambda line: found.append(dict(line)))
    return found[-1]["seconds_training"] + found[-1]["seconds_aggregation"]


def main() -> None:
    """Print a row for every number of clients and batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=12_000)
    parser.add_argument("--first", action="store_true", help="only the first line: ten clients, batches of 256")
    parser.add_argument("--simulation", action="store_true")
    given = parser.parse_args()
    print("| clients | batch | engine | steps | central, s | SplitNN, s | times | range | ms a step |")
    print("|---|---|---|---|---|---|---|---|---|")
    wanted = [(10, 256, "inline")]
    if not given.first:
        wanted += [(clients, 256, "inline") for clients in (2, 4, 20)] + [(10, size, "inline") for size in (64, 1024)]
    if given.simulation:
        wanted.append((10, 256, "simulation"))
    for clients, batch_size, engine in wanted:
        rows = []
        for _ in range(given.repeats):
            with tempfile.TemporaryDirectory() as folder:
                made = settings(given.data_dir, clients, batch_size, given.rows, engine, Path(folder) / "run")
                rows.append((central(made), federated(made)))
        alone, through = (statistics.median(each) for each in zip(*rows, strict=True))
        ratios = [second / first for first, second in rows]
        steps = -(-given.rows // batch_size)
        print(
            f"| {clients} | {batch_size} | {engine} | {steps} | {alone:.2f} | {through:.2f} "
            f"| {statistics.median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f} "
            f"| {1e3 * through / steps:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
