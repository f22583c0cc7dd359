"""The motor score of Parkinson's disease from recordings of the voice: 42 patients, a node each, 5,875 recordings.

Source: A. Tsanas, M. Little, P. McSharry and L. Ramig, "Accurate Telemonitoring of Parkinson's Disease Progression by
Non-Invasive Speech Tests", IEEE Transactions on Biomedical Engineering 2010.
"""

from __future__ import annotations

from pathlib import Path

from thornbed.tasks.multitask import Multitask, Preparation, Scaling
from thornbed.tasks.multitask._parkinsons import CHOSEN, parkinsons

NUM_NODES = 42
TUNED = CHOSEN


def parkinsons_motor(
    data_dir: Path | None,
    *,
    split: int = 0,
    test_share: float = 0.25,
    scaling: Scaling = "zscore",
    intercept: bool = True,
    leave_out: bool = False,
    validation: bool = False,
    pooled: bool = False,
) -> Multitask:
    """Return the task: motor_UPDRS from 16 features; age, sex and time of the test are not used.

    Options as in `Preparation`. Raises MissingData where `data_dir` has no such file, ValueError where it is malformed.
    """
    how = Preparation(split, test_share, scaling, intercept, leave_out, validation, pooled)
    return parkinsons("parkinsons_motor", "motor_UPDRS", data_dir, how)
