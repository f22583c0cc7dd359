"""What does it cost that attackers are shown what others would send? Seconds of training a round, as ratios.

    python benchmarks/attackers_knowledge.py

Ten clients of digits, four malicious, inline; the attack is sign_flip, which is made to ask for more. Each row is
beside the first, which asks for nothing, in the same process; the runs take turns.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from thornbed.attacks import Knowledge
from thornbed.attacks.update import Sight, sign_flip
from thornbed.experiments.runs.launch import prepare, start
from thornbed.flower_apps.settings import settings_from

CLIENTS, MALICIOUS, ROUNDS, TURNS = 10, 4, 6, 3
OWN = sign_flip.NEEDS
ASKED = {
    "nothing": (OWN, 0),
    "OTHER_ATTACKERS": (OWN | {Knowledge.OTHER_ATTACKERS}, MALICIOUS),
    "HONEST_UPDATES": (OWN | {Knowledge.HONEST_UPDATES}, CLIENTS - MALICIOUS),
    "both": (OWN | {Knowledge.OTHER_ATTACKERS, Knowledge.HONEST_UPDATES}, CLIENTS),
}


def asking(peers: Tensor, generator: torch.Generator, sight: Sight) -> Tensor:
    """Send the negative of the own update, after looking at whatever was declared."""
    if Knowledge.HONEST_UPDATES in sign_flip.NEEDS:
        sight.honest()
    return -peers[0]


def seconds(needs: frozenset[Knowledge], folder: Path) -> float:
    """Return the median seconds of training a round of one run, without the first round, in which things are made."""
    sign_flip.NEEDS = needs
    settings = {"attack": "sign_flip", "num_clients": CLIENTS, "num_malicious": MALICIOUS, "rounds": ROUNDS}
    start(prepare(settings_from({**settings, "output": str(folder)})), lambda line: None)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return median(line["seconds_training"] for line in lines[2:])


def main() -> None:
    """Print the table."""
    asking.__module__ = sign_flip.__name__  # where a run looks for NEEDS
    sign_flip.sign_flip = asking
    found: dict[str, list[float]] = {name: [] for name in ASKED}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(TURNS):
            for name, (needs, _) in ASKED.items():
                found[name].append(seconds(needs, Path(folder) / f"{name}-{turn}"))
    table = Table("asks for", "trainings a round", "seconds of training a round", "ratio")
    first = median(found["nothing"])
    for name, (_, more) in ASKED.items():
        time = median(found[name])
        table.add_row(name, f"{CLIENTS} + {more}", f"{time:.3f}", f"{time / first:.2f}")
    Console(file=sys.stdout).print(table)


if __name__ == "__main__":
    main()
