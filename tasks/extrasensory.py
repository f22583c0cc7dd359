"""What one person was doing, from the sensors of a telephone and a watch: sitting or not, a row a minute.

Source: Y. Vaizman, K. Ellis and G. Lanckriet, "Recognizing Detailed Human Context In-the-Wild from Smartphones and
Smartwatches", IEEE Pervasive Computing 2017, http://extrasensory.ucsd.edu, CC BY-NC-SA 4.0: one user's file
UUID.features_labels.csv.gz. The user, the label, the ten agents and the numbers of rows are those of Liu, Xie, Koyejo
and Li, "CoPur: Certifiably Robust Collaborative Inference via Feature Purification", NeurIPS 2022, Section 5.1.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from thornbed.tasks import Defaults, Samples, Task, Tuned
from thornbed.tasks.blocks.contiguous import contiguous
from thornbed.tasks.sources.columns import filled, statistics
from thornbed.tasks.sources.files import existing
from thornbed.tasks.sources.unpacked import unpacked

# Ten agents, one party each; a hundred clients would have 17 rows.
DEFAULTS = Defaults(model="mlp(hidden=(32,))", num_clients=10, clients_per_round=10, partition="iid")
# Chosen on the last fifth of the training rows, without an attack, by `copur/training` and `copur/choice`.
# The attack is that of Liu et al., Section 5.1; adversarial training takes a third of its steps.
TUNED = Tuned(
    options={
        "collaborative_inference": {"head_epochs": 3, "bottleneck": 5},
        "targeted_pgd": {"steps": 30, "step_size": 0.5},
        "adversarial_training": {"steps": 10, "step_size": 0.5},
        "block_adversarial_training": {"steps": 10, "step_size": 0.5},
    }
)

USER = "0BFC35E2-4817-4865-BFA7-764742302A2D"
NUM_TRAIN, NUM_TEST = 1721, 465


class Sensor(NamedTuple):
    """What the names of an agent's columns begin with, the longest beginning counts, and how many there are."""

    beginnings: tuple[str, ...]
    columns: int


# In the paper's order. Every user's file has the same columns, also of sensors that a telephone lacks.
AGENTS = {
    "phone accelerometer": Sensor(("raw_acc:",), 26),
    "gyroscope": Sensor(("proc_gyro:",), 26),
    "magnetometer": Sensor(("raw_magnet:",), 31),
    "watch accelerometer": Sensor(("watch_acceleration:",), 46),
    "watch compass": Sensor(("watch_heading:",), 9),
    "location": Sensor(("location:", "location_quick_features:"), 17),
    "audio": Sensor(("audio_naive:", "audio_properties:"), 28),
    "phone state": Sensor(("discrete:",), 26),
    "environment": Sensor(("lf_measurements:",), 8),
    "time of day": Sensor(("discrete:time_of_day:",), 8),
}
BEGINNINGS = tuple(beginning for sensor in AGENTS.values() for beginning in sensor.beginnings)


def extrasensory(data_dir: Path | None, *, user: str = USER, label: str = "SITTING") -> Task:
    """Return the task: samples of 225 float32 features, two classes, and the columns of ten agents as `blocks`.

    Of the rows that say whether the label holds, in the order of time, the first 1721 are for training and the next
    465 for testing; the paper's user has 2187 of them, and the last is not used, as the paper has it. So training and
    test are different days, and the classes are not in the same shares: for SITTING 56% and 72%.

    A value that is missing, which is a tenth of the table, becomes the mean of the feature's training values, which
    is 0 once normalised; a feature without any (seven, of sensors that this telephone lacks) is 0. `mean` and `std` are
    of the 1721 training rows alone, `std` of the values that are there, and 1 for a feature that is constant in them.

    Raises MissingData where `data_dir` has no such file, ValueError for a file that is malformed, columns that are
    missing, a label that it does not have, fewer labelled rows than that, and a class without a training row.
    """
    name = f"{user}.features_labels.csv.gz"
    where = (
        f"put {name} into that folder, out of the archive ExtraSensory.per_uuid_features_labels.zip of "
        "http://extrasensory.ucsd.edu"
    )
    path = existing("extrasensory", data_dir, (name,), where)
    table = _read(path)
    names, answers = [str(name) for name in table.columns], f"label:{label}"
    if answers not in names:
        known = sorted(name.removeprefix("label:") for name in names if name.startswith("label:"))
        raise ValueError(f"{path} has no column {answers}; its {len(known)} labels are {', '.join(known)}")
    agents = _agents(path, [name for name in names if name.startswith(BEGINNINGS)])
    columns = [name for held in agents for name in held]
    if "timestamp" not in names:
        raise ValueError(f"{path} has no column timestamp, by which rows are ordered")
    labelled = table[table[answers].notna()].sort_values("timestamp", kind="stable")
    if len(labelled) < NUM_TRAIN + NUM_TEST:
        raise ValueError(
            f"{path} has {len(labelled)} rows that say whether {label} holds, expected {NUM_TRAIN} for training "
            f"and {NUM_TEST} for testing"
        )
    if wrong := sorted(set(labelled[answers]) - {0, 1}):
        raise ValueError(f"{path}: {answers} is {wrong[0]} in some row, expected 0, 1 or nothing")
    y = torch.from_numpy(labelled[answers].to_numpy(np.int64))
    if len(untrained := torch.bincount(y[:NUM_TRAIN], minlength=2).eq(0).nonzero()):
        raise ValueError(f"{path}: none of the {NUM_TRAIN} rows to train on has {answers} {int(untrained[0])}")
    x = labelled[columns].to_numpy(np.float64)
    mean, std = statistics(x[:NUM_TRAIN])
    samples = Samples(filled(x, mean), y)
    return Task(
        name="extrasensory",
        modality="table",
        num_classes=2,
        train=samples.select(torch.arange(NUM_TRAIN)),
        test=samples.select(torch.arange(NUM_TRAIN, NUM_TRAIN + NUM_TEST)),
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        class_names=(f"not {label.lower()}", label.lower()),
        blocks=contiguous((len(columns),), len(agents), sizes=tuple(map(len, agents))),
    )


def _read(path: Path) -> pd.DataFrame:
    content = BytesIO(unpacked(path))
    try:
        return pd.read_csv(content).astype(np.float64)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a table of numbers: {error}") from error


def _agents(path: Path, names: list[str]) -> list[list[str]]:
    """Return the columns of each agent, in the order of the file; raises ValueError unless all have all of theirs."""
    held: dict[str, list[str]] = {agent: [] for agent in AGENTS}
    for name in names:
        longest = max((each for each in BEGINNINGS if name.startswith(each)), key=len)
        held[next(agent for agent, sensor in AGENTS.items() if longest in sensor.beginnings)].append(name)
    wrong = [
        f"{len(held[agent])} of the {agent}, which has {sensor.columns} ({' and '.join(sensor.beginnings)})"
        for agent, sensor in AGENTS.items()
        if len(held[agent]) != sensor.columns
    ]
    if wrong:
        whole = sum(sensor.columns for sensor in AGENTS.values())
        raise ValueError(
            f"{path} has {len(names)} feature columns, expected {whole} as in every published file: {'; '.join(wrong)}"
        )
    return list(held.values())
