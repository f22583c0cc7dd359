"""How the start of a simulation grows with the number of clients, where few of them take part in a round.

The same run in Flower's virtual client engine with each number of clients: ten are drawn a round. All of it is timed,
from the command to the result, and the rounds alone, of which the first begins once the server knows which node holds
which client. Numbers alternate, so that a busy machine slows all of them.

    python benchmarks/many_clients.py [--num-clients 100 1000] [--rounds 2] [--repeats 3]
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
from rich.console import Console
from rich.table import Table

from thornbed.experiments.runs import launch
from thornbed.flower_apps.settings import settings_from


def timed(num_clients: int, rounds: int, folder: Path) -> tuple[float, float]:
    """Return the seconds from the command to the result, and those of the rounds with what precedes the first."""
    flags = {"task": "digits", "num-clients": num_clients, "clients-per-round": 10, "rounds": rounds}
    settings = settings_from({**flags, "partition": "iid", "engine": "simulation", "output": str(folder)})
    started = time.perf_counter()
    launch.start(launch.prepare(settings), lambda line: None)
    return time.perf_counter() - started, json.loads((folder / "summary.json").read_text())["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-clients", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    totals: dict[int, list[float]] = {number: [] for number in given.num_clients}
    rounds: dict[int, list[float]] = {number: [] for number in given.num_clients}
    with TemporaryDirectory() as folder:
        for repeat in range(given.repeats):
            for number in given.num_clients:
                total, inside = timed(number, given.rounds, Path(folder) / f"{number}-{repeat}")
                totals[number].append(total)
                rounds[number].append(inside)
    table = Table(title=f"digits, 10 clients a round, {given.rounds} rounds, medians of {given.repeats}")
    for name in ("clients", "seconds, all", "of them rounds", f"ratio of all to {given.num_clients[0]} clients"):
        table.add_column(name, justify="right")
    for number in given.num_clients:
        pairs = zip(totals[number], totals[given.num_clients[0]], strict=True)
        ratio = statistics.median(one / other for one, other in pairs)
        seconds = (statistics.median(totals[number]), statistics.median(rounds[number]))
        table.add_row(f"{number:,}", *(f"{value:.1f}" for value in seconds), f"{ratio:.2f}")
    console = Console()
    console.print(table)
    console.print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
