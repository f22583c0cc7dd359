"""What a sweep costs beside its cells alone: 12 short cells by `thornbed sweep`, and in a loop of one process.

Both are timed as a user types them, imports included, each repeat in a fresh process; the loop is the cheapest way to
run the same cells one after the other without a sweep.

    python benchmarks/sweep.py [--rounds 20] [--repeats 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

FILE = """
task = "digits"
num-clients = 20
rounds = {rounds}
strategy = ["fedavg", "median", "krum", "invariant"]
attack = ["pixel_trigger(size=2)", "gaussian(std=0.1)", "label_flip"]
"""
LOOP = """
import sys
from pathlib import Path
from thornbed.experiments.runs import launch
from thornbed.experiments.sweeps.plan import read_plan
for cell in read_plan(Path(sys.argv[1])).cells:
    settings = launch.prepare(cell.settings.model_copy(update={"output": sys.argv[2] + "/" + cell.key}))
    launch.start(settings, lambda line: None)
"""


def seconds(*words: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    alone, swept, both = [], [], []
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "cells.toml").write_text(FILE.format(rounds=given.rounds))
        file = str(folder / "cells.toml")
        for repeat in range(given.repeats):
            alone.append(seconds("-c", LOOP, file, str(folder / f"loop{repeat}")))
            command = ["-m", "thornbed.experiments.cli", "sweep", file]
            swept.append(seconds(*command, "--output", str(folder / f"sweep{repeat}")))
            both.append(seconds(*command, "--jobs", "2", "--output", str(folder / f"jobs{repeat}")))
    print(f"12 cells of {given.rounds} rounds, {os.cpu_count()} cores, {given.repeats} repeats")
    print("| way | seconds (median) | ratio to the loop (median of pairs) | range |\n| --- | --- | --- | --- |")
    for way, values in (("loop in one process", alone), ("sweep, one job", swept), ("sweep, two jobs", both)):
        ratios = [value / base for value, base in zip(values, alone, strict=True)]
        middle = statistics.median(ratios)
        print(f"| {way} | {statistics.median(values):.1f} | {middle:.2f} | {min(ratios):.2f} to {max(ratios):.2f} |")


if __name__ == "__main__":
    main()
