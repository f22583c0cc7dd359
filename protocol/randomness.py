"""One seed for a run, and a stream of its own for every purpose, round and client.

Nobody seeds torch globally. Whoever needs randomness asks for the generator of a path of names and numbers, such as
`generator(seed, "train", round, client)`: the same path gives the same stream in every engine and every process, and
two paths give streams that have nothing to do with each other.
"""

from __future__ import annotations

import hashlib

import torch


def derived_seed(seed: int, *path: str | int) -> int:
    """Return a seed in [0, 2**63) that depends on the run's seed and on every part of the path."""
    text = "/".join([str(seed), *(f"{type(part).__name__}:{part}" for part in path)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *path: str | int) -> torch.Generator:
    """Return a CPU generator for the stream of that path."""
    return torch.Generator().manual_seed(derived_seed(seed, *path))
