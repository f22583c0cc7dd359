"""The table of both Parkinson's tasks.

Source: A. Tsanas, M. Little, P. McSharry and L. Ramig, "Accurate Telemonitoring of Parkinson's Disease Progression by
Non-Invasive Speech Tests", IEEE Transactions on Biomedical Engineering 2010; UCI Machine Learning Repository,
https://archive.ics.uci.edu/dataset/189/parkinsons+telemonitoring.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from thornbed.tasks import Tuned
from thornbed.tasks.multitask import Multitask, Preparation, prepared
from thornbed.tasks.multitask._table import read_nodes
from thornbed.tasks.sources.files import existing

# lambda1 by clean validation on the total score, passes until the duality gap is small: docs/papers/at2fl.md.
CHOSEN = Tuned(
    settings={"mocha": {"local_epochs": 20.0, "rounds": 50}},
    options={
        "mocha": {"lambda1": 0.01, "lambda2": 0.001},
        "at2fl": {"iterations": 30, "balls": 4, "start": "both"},
    },
)

FILES = ("parkinsons_updrs.csv", "parkinsons_updrs.data")
FEATURES = (
    "Jitter(%)", "Jitter(Abs)", "Jitter:RAP", "Jitter:PPQ5", "Jitter:DDP", "Shimmer", "Shimmer(dB)", "Shimmer:APQ3",
    "Shimmer:APQ5", "Shimmer:APQ11", "Shimmer:DDA", "NHR", "HNR", "RPDE", "DFA", "PPE",
)  # fmt: skip


def parkinsons(
    name: str, target: Literal["total_UPDRS", "motor_UPDRS"], data_dir: Path | None, how: Preparation
) -> Multitask:
    """Return the task of one of the two scores: 42 patients, 16 features of voices, 101 to 168 recordings each."""
    where = (
        "put parkinsons_updrs.data, or the same table as parkinsons_updrs.csv, from "
        "https://archive.ics.uci.edu/dataset/189/parkinsons+telemonitoring into that folder"
    )
    path = existing(name, data_dir, FILES, where)
    raw, features = read_nodes(path, node="subject#", target=target, features=FEATURES)
    return prepared(name, str(path), "squared", raw, features, how)
