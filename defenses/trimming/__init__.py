"""Defenses of a node that leaves some of its own points out: `NAME(x, y, w, loss, *, options) -> kept`, (n,) bool.

x (n, d) and y (n,) are its points, with labels of -1 and 1 for a classification, w (d,) the weights that the server
last sent it, `loss` "hinge" or "squared". A node of federated multitask learning asks before its local work, and then
has fewer points. Inputs are never modified.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Loss = Literal["hinge", "squared"]


def checked(rule: str, x: Floats, y: Floats, w: Floats, share: float) -> None:
    """Raise ValueError, with the name of the defense, for shapes that do not fit, or a share that is not in [0, 1)."""
    if x.ndim != 2 or y.shape != x.shape[:1] or w.shape != x.shape[1:] or not x.size:
        raise ValueError(f"{rule} needs x (n, d), y (n,) and w (d,): shapes {x.shape}, {y.shape}, {w.shape}")
    if not all(np.isfinite(each).all() for each in (x, y, w)):
        raise ValueError(f"{rule} needs finite points and weights: these are not")
    if not 0 <= share < 1:
        raise ValueError(f"{rule} needs 0 <= share < 1: share = {share}")


def all_but_largest(scores: Floats, share: float, groups: Floats | None = None) -> NDArray[np.bool_]:
    """Return which of n points to keep: of each group, ceil(share * its size) with the largest scores go.

    One point of each group stays whatever the share. Of equal scores the later point goes.
    """
    kept = np.ones(len(scores), dtype=bool)
    for group in np.unique(groups) if groups is not None else (None,):
        rows = np.arange(len(scores)) if groups is None else np.flatnonzero(groups == group)
        gone = min(math.ceil(Fraction(str(share)) * len(rows)), len(rows) - 1)  # 0.07 of 100 are 7: not so in floats
        kept[rows[np.argsort(scores[rows], kind="stable")[len(rows) - gone :]]] = False
    return kept
