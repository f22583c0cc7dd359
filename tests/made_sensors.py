"""ExtraSensory files that tests make: the columns of the published ones, in their order, with values of the test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from thornbed.tasks.extrasensory import AGENTS, USER

# The second of two beginnings has the smaller part of its agent's columns, as published.
SECOND = {"location_quick_features:": 6, "audio_properties:": 2}


def _columns() -> list[str]:
    named = []
    for sensor in AGENTS.values():
        *before, last = sensor.beginnings
        tail = SECOND.get(last, 0) if before else sensor.columns
        counts = [*(sensor.columns - tail for _ in before), tail]
        named += [f"{each}{i}" for each, count in zip(sensor.beginnings, counts) for i in range(count)]
    return named


COLUMNS = _columns()


def write(folder: Path, table: pd.DataFrame) -> Path:
    """Write the file of the paper's user, packed little, which takes less time."""
    path = folder / f"{USER}.features_labels.csv.gz"
    table.to_csv(path, index=False, compression={"method": "gzip", "compresslevel": 1})
    return path


def sensors(folder: Path) -> None:
    """Make the file of the paper's user: 2,300 rows, a tenth of the values missing."""
    rng = np.random.default_rng(0)
    values = rng.integers(-9, 10, size=(2300, len(COLUMNS)))
    table = pd.DataFrame(values, columns=COLUMNS).mask(rng.random(values.shape) < 0.1).astype("Int64")
    labels = np.where(np.arange(2300) % 50 == 0, np.nan, np.arange(2300) % 2)
    write(folder, table.assign(**{"timestamp": np.arange(2300), "label:SITTING": labels}))
