"""Each of ten digits against the others, a node each, on images that come with scikit-learn: no data folder needed.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998;
the 1,797 images of its test part, as `sklearn.datasets.load_digits` embeds them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from tasks.multitask import Multitask
from tasks.multitask._nodes import Preparation, RawNode, Scaling, prepared

NUM_NODES = NUM_DIGITS = 10


def digit_nodes(
    data_dir: Path | None,
    *,
    split: int = 0,
    test_share: float = 0.25,
    scaling: Scaling = "minmax",
    intercept: bool = True,
    leave_out: bool = False,
) -> Multitask:
    """Return the task: node k has label 1 for images of digit k, -1 for others, and 64 grey levels as features.

    No image is in two nodes: every other image of a digit goes to its own node, the rest in turn to the nine others.
    Pixels that are 0 everywhere are left out. `data_dir` is not used; the other options are those of `Preparation`.
    """
    how = Preparation(split=split, test_share=test_share, scaling=scaling, intercept=intercept, leave_out=leave_out)
    levels, digits = load_digits(return_X_y=True)
    owner = np.empty(len(digits), dtype=np.int64)
    for digit in range(NUM_DIGITS):
        rows = np.flatnonzero(digits == digit)
        owner[rows[::2]] = digit
        given = rows[1::2]
        owner[given] = (digit + 1 + np.arange(len(given)) % (NUM_DIGITS - 1)) % NUM_DIGITS
    raw = []
    for node in range(NUM_DIGITS):
        rows = np.flatnonzero(owner == node)
        labels = np.where(digits[rows] == node, 1.0, -1.0)
        raw.append(RawNode(str(node), levels[rows], labels, rows + 1))
    features = tuple(f"pixel_{row}_{column}" for row in range(8) for column in range(8))
    return prepared("digit_nodes", "load_digits", "hinge", raw, features, how)
