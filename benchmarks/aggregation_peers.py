"""The aggregation rules that `benchmarks/aggregation.py` times: ours, and Flower's and byzfl's for the same work."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Candidate = Callable[[Tensor], Tensor]
ALPHA, TAU = 0.25, 0.2


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
    rule = getattr(importlib.import_module(f"thornbed.defenses.aggregation.{name}"), name)
    options = {"invariant": {"tau": TAU, "alpha": ALPHA}, "trimmed_mean": {"alpha": ALPHA}, "and_mask": {"tau": TAU}}
    return lambda updates: rule(updates, torch.full((len(updates),), 1 / len(updates)), **options.get(name, {}))


def flower(name: str) -> Candidate:
    from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
    from flwr.serverapp.strategy.multikrum import select_multikrum

    def krum(updates: Tensor) -> Tensor:
        n = len(updates)
        (chosen,) = select_multikrum([Row(row) for row in updates.numpy()], max(0, (n - 3) // 2), 1)
        return torch.from_numpy(chosen.row)

    def multi_krum(updates: Tensor) -> Tensor:
        n, f = len(updates), max(0, (len(updates) - 3) // 2)
        chosen = select_multikrum([Row(row) for row in updates.numpy()], f, n - f)
        mean = np.zeros_like(chosen[0].row)
        for each in chosen:
            mean += each.row / len(chosen)
        return torch.from_numpy(mean)

    return {
        "trimmed_mean": lambda updates: torch.from_numpy(trim_mean(updates.numpy(), ALPHA)),
        "median": lambda updates: torch.from_numpy(np.median(updates.numpy(), axis=0)),
        "krum": krum,
        "multi_krum": multi_krum,
    }[name]


def byzfl(name: str, iterations: int = 3) -> Candidate:
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
            "rfa": lambda: peers.GeometricMedian(T=iterations),
        }[name]
        return build()(updates)

    return call


def candidate(label: str) -> Candidate:
    if label == "mean(0)":
        return lambda updates: updates.mean(0)
    source, name = label.split()
    return {"ours": ours, "flwr": flower, "byzfl": byzfl}[source](name)
