"""Time the aggregation rules beside Flower's own, byzfl's and the plain mean, on equal updates in one run.

    python benchmarks/aggregation.py                     # 20 clients, 11,000,000 parameters (a ResNet-18)
    python benchmarks/aggregation.py --d 1000000 --n 50 --repeats 3

What is timed, best case for the peers: Flower's numeric functions themselves (`trim_mean`, `np.median` as `FedMedian`
calls it, `select_multikrum` with its copies of the rows), given arrays that are ready, so no messages, no bytes to
decode, no metrics; byzfl's aggregators on one torch tensor. One repeat runs every candidate once, one after the other,
so that other work on the machine meets all of them; seconds and ratios are medians over the repeats, and each ratio
is taken within a repeat. Before timing, every peer's answer is compared with ours.

Memory is the growth of the peak resident size of a fresh process during one call (after a small warm-up call), beyond
the input, in multiples of the input. Linux only; elsewhere the column stays empty.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

Candidate = Callable[[Tensor], Tensor]
ALPHA, TAU = 0.25, 0.2
RULES = ("fedavg", "invariant", "and_mask", "trimmed_mean", "median", "krum", "multi_krum")
# The peer's name for the same work. The two masks have no peer: trimming alone is the nearest thing others have.
PEERS = {
    "fedavg": (),
    "invariant": ("flwr trimmed_mean", "byzfl trimmed_mean"),
    "and_mask": (),
    "trimmed_mean": ("flwr trimmed_mean", "byzfl trimmed_mean"),
    "median": ("flwr median", "byzfl median"),
    "krum": ("flwr krum", "byzfl krum"),
    "multi_krum": ("byzfl multi_krum",),
}


class Row:
    """One client's update in the shapes that Flower's Krum asks for; it hands over the array itself, not a copy."""

    def __init__(self, row: np.ndarray) -> None:
        self.row = row
        self.array_records = {"arrays": self}

    def __getitem__(self, key: str) -> Row:
        return self.array_records[key]

    def to_numpy_ndarrays(self) -> list[np.ndarray]:
        """Return the update as a list of one array."""
        return [self.row]


def ours(name: str) -> Candidate:
    rule = getattr(importlib.import_module(f"defenses.aggregation.{name}"), name)
    options = {"invariant": {"tau": TAU, "alpha": ALPHA}, "trimmed_mean": {"alpha": ALPHA}, "and_mask": {"tau": TAU}}
    return lambda updates: rule(updates, torch.full((len(updates),), 1 / len(updates)), **options.get(name, {}))


def flower(name: str) -> Candidate:
    from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
    from flwr.serverapp.strategy.multikrum import select_multikrum

    def krum(updates: Tensor) -> Tensor:
        n = len(updates)
        (chosen,) = select_multikrum([Row(row) for row in updates.numpy()], max(0, (n - 3) // 2), 1)
        return torch.from_numpy(chosen.row)

    return {
        "trimmed_mean": lambda updates: torch.from_numpy(trim_mean(updates.numpy(), ALPHA)),
        "median": lambda updates: torch.from_numpy(np.median(updates.numpy(), axis=0)),
        "krum": krum,
    }[name]


def byzfl(name: str) -> Candidate:
    if "byzfl" not in sys.modules:  # its own __init__ imports torchvision and data sets, which no aggregator needs
        spec = importlib.util.find_spec("byzfl")
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError("byzfl is not installed")
        package = types.ModuleType("byzfl")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["byzfl"] = package
    peers = importlib.import_module("byzfl.aggregators.aggregators")

    def call(updates: Tensor) -> Tensor:
        f = max(0, (len(updates) - 3) // 2)
        build = {
            "trimmed_mean": lambda: peers.TrMean(f=int(ALPHA * len(updates))),
            "median": peers.Median,
            "krum": lambda: peers.Krum(f=f),
            "multi_krum": lambda: peers.MultiKrum(f=f),
        }[name]
        return build()(updates)

    return call


def candidate(label: str) -> Candidate:
    if label == "mean(0)":
        return lambda updates: updates.mean(0)
    source, name = label.split()
    return {"ours": ours, "flwr": flower, "byzfl": byzfl}[source](name)


def made_updates(n: int, d: int) -> Tensor:
    """Make updates of a common direction and noise that differs by client; nothing larger than the result is held."""
    generator = torch.Generator().manual_seed(0)
    direction = 0.01 * torch.randn(d, generator=generator)
    updates = torch.empty(n, d)
    for i, row in enumerate(updates):
        torch.randn(d, generator=generator, out=row)
        row.mul_(0.01 * (1 + 0.05 * i)).add_(direction)
    return updates


def kilobytes(field: str) -> int | None:
    """Read VmRSS or VmHWM, the present or peak resident size; unlike ru_maxrss it does not begin with the parent's."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def print_memory(label: str, n: int, d: int) -> None:
    run = candidate(label)
    run(made_updates(n, 1000))
    updates = made_updates(n, d)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak of making the input
    before = kilobytes("VmRSS")
    run(updates)
    after = kilobytes("VmHWM")
    if before is not None and after is not None:
        print((after - before) * 1024 / (4 * n * d))


def memory(label: str, n: int, d: int) -> str:
    command = [sys.executable, __file__, "--n", str(n), "--d", str(d), "--memory-of", label]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return f"{float(answer):.2f}" if answer else "-"


def agree(label: str, result: Tensor, expected: Tensor) -> str:
    if torch.allclose(result, expected, rtol=1e-5, atol=1e-7):
        return f"{label}: the same answer as ours"
    return f"{label}: NOT our answer, largest difference {float((result - expected).abs().max()):.2e}"


def hardware() -> str:
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    versions = {name: importlib.metadata.version(name) for name in ("torch", "numpy", "numba", "flwr")}
    return (
        f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads, {platform.system()}, Python "
        f"{platform.python_version()}, " + ", ".join(f"{name} {version}" for name, version in versions.items())
    )


def available(labels: list[str]) -> list[str]:
    kept, missing = [], set()
    for label in labels:
        try:
            candidate(label)
            kept.append(label)
        except ImportError as error:
            missing.add(f"{label.split()[0]} is left out, since it cannot be imported: {error}")
    print(*sorted(missing), sep="\n", end="\n" if missing else "")
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20, help="clients (20)")
    parser.add_argument("--d", type=int, default=11_000_000, help="parameters (11,000,000)")
    parser.add_argument("--repeats", type=int, default=5, help="how often everything is run (5)")
    parser.add_argument("--rules", nargs="+", default=RULES, choices=RULES, help="which rules, with their peers (all)")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print_memory(options.memory_of, options.n, options.d)
        return

    print(hardware())
    print(
        f"n = {options.n}, d = {options.d:,}, input {4e-6 * options.n * options.d:,.0f} MB, {options.repeats} repeats"
    )
    peers = sorted({peer for name in options.rules for peer in PEERS[name]})
    labels = available(["mean(0)", *(f"ours {name}" for name in options.rules), *peers])
    runs = {label: candidate(label) for label in labels}
    small = made_updates(options.n, 1000)
    for label, run in runs.items():
        started = time.perf_counter()
        run(small)
        spent = time.perf_counter() - started
        if label.startswith("ours"):
            print(f"first call of {label.split()[1]}, compiled or read from the cache: {spent:.2f} s")

    used = {label: memory(label, options.n, options.d) for label in labels}
    updates = made_updates(options.n, options.d)
    for name in options.rules:
        expected = runs[f"ours {name}"](updates)
        for peer in PEERS[name]:
            if peer in runs and name == peer.split()[1]:
                print(agree(peer, runs[peer](updates), expected))
    seconds: dict[str, list[float]] = {label: [] for label in labels}
    for _ in range(options.repeats):
        for label, run in runs.items():
            started = time.perf_counter()
            run(updates)
            seconds[label].append(time.perf_counter() - started)

    def ratio(label: str, other: str) -> str:
        if other not in seconds:
            return "-"
        return f"{statistics.median(b / a for a, b in zip(seconds[label], seconds[other], strict=True)):.1f}"

    print("\n| rule | seconds | times mean(0) | faster than flwr | faster than byzfl | extra memory |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in options.rules:
        label = f"ours {name}"
        of = {
            source: next((peer for peer in PEERS[name] if peer.startswith(source)), "-") for source in ("flwr", "byzfl")
        }
        print(
            f"| {name} | {statistics.median(seconds[label]):.3f} | {ratio('mean(0)', label)} "
            f"| {ratio(label, of['flwr'])} | {ratio(label, of['byzfl'])} | {used[label]} |"
        )
    print("\n| peer | seconds | times mean(0) | extra memory |")
    print("| --- | --- | --- | --- |")
    for label in labels:
        if not label.startswith("ours"):
            print(f"| {label} | {statistics.median(seconds[label]):.3f} | {ratio('mean(0)', label)} | {used[label]} |")


if __name__ == "__main__":
    main()
