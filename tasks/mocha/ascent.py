"""The two loops that are compiled: a node's duals one by one, and all nodes' in turn.

They share a file, as the compiler's cache looks at the file of a function alone, not at those it calls.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from thornbed.tasks.multitask import Array


# "reassoc" allows vector sums in the inner products.
@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def ascend(x: Array, y: Array, alpha: Array, w: Array, curvature: float, hinge: bool, order: NDArray[np.int64]) -> None:
    """Raise the duals of the rows in `order` one by one, in place; w follows by curvature * change * x.

    The curvature is here that of the sum of duals divided by n.
    """
    d = w.size
    for i in order:
        row = x[i]
        z = 0.0
        square = 0.0
        for k in range(d):
            z += row[k] * w[k]
            square += row[k] * row[k]
        bend = curvature * square
        if hinge:
            slack = 1 - y[i] * z
            # A point at the origin does not bend the dual: its loss is 1 whatever the weights.
            raised = min(1.0, max(0.0, y[i] * alpha[i] + slack / bend)) if bend > 0 else 1.0
            change = y[i] * raised - alpha[i]
        else:
            change = (y[i] - z - alpha[i] / 2) / (0.5 + bend)
        if change != 0:
            alpha[i] += change
            for k in range(d):
                w[k] += curvature * change * row[k]


@njit(nogil=True, cache=True)
def sweep(
    x: Array,
    y: Array,
    ends: NDArray[np.int64],
    alpha: Array,
    rows: Array,
    influence: Array,
    hinge: bool,
    order: NDArray[np.int64],
) -> None:
    """Raise every dual once, node by node, in place; `rows` (m, d) are the weights, and stay W = V K."""
    m, d = rows.shape
    before = np.empty(d)
    for node in range(m):
        part = slice(ends[node], ends[node + 1])
        before[:] = rows[node]
        curvature = influence[node, node]
        ascend(x[part], y[part], alpha[part], rows[node], curvature / (part.stop - part.start), hinge, order[part])
        for k in range(d):
            before[k] = (rows[node, k] - before[k]) / curvature
        for other in range(m):
            if other != node:
                for k in range(d):
                    rows[other, k] += influence[other, node] * before[k]
