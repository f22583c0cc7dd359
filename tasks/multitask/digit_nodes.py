"""Each of ten digits, or of groups of them, against the others, a node each, on images that scikit-learn brings along.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998;
the 1,797 images of its test part, as `sklearn.datasets.load_digits` embeds them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from thornbed.tasks.multitask import Multitask, Preparation, RawNode, Scaling, prepared

NUM_NODES = 10
DIGITS = "0123456789"


def digit_nodes(
    data_dir: Path | None,
    *,
    groups: tuple[str, ...] = tuple(DIGITS),
    split: int = 0,
    test_share: float = 0.25,
    scaling: Scaling = "minmax",
    intercept: bool = True,
    leave_out: bool = False,
    validation: bool = False,
    pooled: bool = False,
) -> Multitask:
    """Return the task: a node has label 1 for images of its digits, -1 for others, and 64 grey levels as features.

    `groups` are the digits of each node, such as ("01", "234", "56789"); every digit is in one of two groups or more.
    No image is in two nodes: every other image of a digit goes to its own node, the rest in turn to the others. Pixels
    that are 0 everywhere are left out. `data_dir` is not used; the other options are those of `Preparation`. Raises
    ValueError for other groups.
    """
    if len(groups) < 2 or sorted("".join(groups)) != list(DIGITS) or not all(groups):
        raise ValueError(
            f'digit_nodes needs each digit in one of two groups or more, such as ("01", "23456789"): {groups}'
        )
    how = Preparation(split, test_share, scaling, intercept, leave_out, validation, pooled)
    levels, digits = load_digits(return_X_y=True)
    owner = np.empty(len(digits), dtype=np.int64)
    nodes = len(groups)
    home = np.array([next(node for node, group in enumerate(groups) if digit in group) for digit in DIGITS])
    for digit, node in enumerate(home):
        rows = np.flatnonzero(digits == digit)
        owner[rows[::2]] = node
        given = rows[1::2]
        owner[given] = (node + 1 + np.arange(len(given)) % (nodes - 1)) % nodes
    raw = []
    for node, group in enumerate(groups):
        rows = np.flatnonzero(owner == node)
        labels = np.where(home[digits[rows]] == node, 1.0, -1.0)
        raw.append(RawNode(group, levels[rows], labels, rows + 1))
    features = tuple(f"pixel_{row}_{column}" for row in range(8) for column in range(8))
    return prepared("digit_nodes", "load_digits", "hinge", raw, features, how)
