"""How much the engines cost beside a plain PyTorch loop that does the same training.

The loop is what one would write without a framework: for every round and client load the weights, train, keep the
result; then average and test. It draws the same batches, so it makes the same model, which is checked. All train on one
thread. The virtual client engine is timed twice: its rounds alone, and from the command to the result.

    python benchmarks/engines.py [--task digits] [--data-dir DIR] [--model cnn] [--rounds 10] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from thornbed.experiments.runs import launch
from thornbed.flower_apps.resolving import check, resolve
from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun
from thornbed.flower_apps.settings import Resolved, settings_from
from thornbed.protocol.randomness import generator


def plain(settings: Resolved) -> tuple[float, float]:
    """Return the seconds and the final test loss of a plain loop."""
    run = HorizontalRun(settings)
    task, rows = run.task, run.partitions
    model, test = run.new_model(), task.samples("test")
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    started, threads = time.perf_counter(), torch.get_num_threads()
    for server_round in range(settings.rounds + 1):
        if server_round:
            torch.set_num_threads(1)
            results, sizes = [], []
            for client in range(settings.num_clients):
                model.load_state_dict(weights)
                model.train()
                samples = task.samples("train", torch.from_numpy(rows[client]))
                optimizer = torch.optim.SGD(model.parameters(), lr=settings.learning_rate, momentum=0.9)
                stream = generator(settings.seed, "train", server_round, client)
                torch.randint(2**63 - 1, (), generator=stream)  # the client's seed for dropout; none is used here
                order = torch.randperm(len(samples), generator=stream)
                batches = list(order.split(settings.batch_size))
                if len(batches) > 1 and len(batches[-1]) == 1:
                    batches[-2:] = [torch.cat(batches[-2:])]
                for batch in batches:
                    optimizer.zero_grad()
                    loss = F.cross_entropy(model(samples.x[batch]), samples.y[batch])
                    loss.backward()
                    optimizer.step()
                results.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
                sizes.append(len(samples))
            torch.set_num_threads(threads)
            shares = [size / sum(sizes) for size in sizes]
            weights = {name: sum(s * r[name] for s, r in zip(shares, results, strict=True)) for name in weights}
        model.load_state_dict(weights)
        model.eval()
        with torch.inference_mode():
            losses = [
                F.cross_entropy(model(x), y, reduction="sum").item()
                for x, y in zip(test.x.split(256), test.y.split(256), strict=True)
            ]
    return time.perf_counter() - started, sum(losses) / len(test)


def engine(settings: Resolved, name: str, folder: Path) -> tuple[float, float, float]:
    """Return the seconds of the rounds, the seconds from command to result, and the final test loss."""
    run = settings.model_copy(update={"engine": name, "output": str(folder)})
    started = time.perf_counter()
    launch.start(run, lambda line: None)
    total = time.perf_counter() - started
    summary = json.loads((folder / "summary.json").read_text())
    return summary["seconds"], total, summary["metrics"]["loss"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="digits")
    parser.add_argument("--data-dir", default="")
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--num-clients", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    settings = resolve(
        settings_from(
            {
                "task": given.task,
                "data-dir": given.data_dir,
                "model": given.model,
                "num-clients": given.num_clients,
                "clients-per-round": given.num_clients,
                "rounds": given.rounds,
                "optimizer": "sgd(momentum=0.9)",
            }
        )
    )
    check(settings)
    rows: dict[str, list[float]] = {"plain": [], "inline": [], "simulation, rounds": [], "simulation, all": []}
    with TemporaryDirectory() as folder:
        # The loop sums in another order, and training makes more of the last bits with every step: one round is held
        # to be equal, the later ones are timed only.
        one = settings.model_copy(update={"rounds": 1})
        (*_, loss), (_, reference) = engine(one, "inline", Path(folder) / "one"), plain(one)
        assert abs(loss - reference) < 1e-5 * reference, (loss, reference)
        for repeat in range(given.repeats):
            rows["plain"].append(plain(settings)[0])
            seconds, *_ = engine(settings, "inline", Path(folder) / f"inline-{repeat}")
            rows["inline"].append(seconds)
            seconds, total, _ = engine(settings, "simulation", Path(folder) / f"simulation-{repeat}")
            rows["simulation, rounds"].append(seconds)
            rows["simulation, all"].append(total)
    table = Table(title=f"{given.task}, {given.model}, {given.num_clients} clients, {given.rounds} rounds")
    for name in ("engine", "seconds (median)", "ratio to plain (median of pairs)", "range of the ratio"):
        table.add_column(name, justify="left" if name == "engine" else "right")
    for name, values in rows.items():
        ratios = [value / base for value, base in zip(values, rows["plain"], strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        table.add_row(name, f"{statistics.median(values):.2f}", f"{statistics.median(ratios):.2f}", spread)
    console = Console()
    console.print(table)
    console.print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
