"""What a node of federated multitask learning does when it is asked: trim its points, improve its duals, answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from thornbed.tasks.mocha.algorithm import LocalWork, local_work
from thornbed.tasks.multitask import Array, Loss, Points

Trimming = Callable[[Array, Array, Array, Loss], NDArray[np.bool_]]
"""A defense of `defenses.trimming`: x (n, d), y (n,), w (d,) and the loss to the points that are kept (n,)."""


def node_work(
    points: Points,
    alpha: Array | None,
    w: Array,
    curvature: float,
    loss: Loss,
    generator: torch.Generator,
    *,
    passes: float,
    held: Array,
    trimmings: Sequence[Trimming] = (),
) -> LocalWork:
    """Return the node's work on the points that it keeps; `alpha` (n,) of the result is 0 for the others.

    alpha: its duals (n,), None where it has none yet, or has lost them. held (d,): the sum of its duals that is in the
    weights w (d,) it was sent: of earlier duals where its last reply was lost, and of other points where it trims.
    Trimmings look at the points from the first weights on that are not 0, each at what the ones before it have kept.
    """
    n = len(points)
    kept = np.ones(n, dtype=bool)
    if w.any():
        for trim in trimmings:
            rows = np.flatnonzero(kept)
            kept[rows[~trim(points.x[rows], points.y[rows], w, loss)]] = False
    mine = points if kept.all() else points.select(kept)
    start = np.zeros(len(mine)) if alpha is None else alpha[kept]
    work = local_work(mine, start, w, curvature, loss, generator, passes=passes, held=held)
    whole = np.zeros(n)
    whole[kept] = work.alpha
    return LocalWork(alpha=whole, v=work.v, loss=work.loss, conjugate=work.conjugate)
