"""What multitask learning is compared with: every node for itself, one model for all; and how models are judged.

Paper: Smith et al., "Federated Multi-Task Learning", NeurIPS 2017, Table 1 (local, global, MTL).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from thornbed.tasks.mocha.objective import Coupling
from thornbed.tasks.mocha.solving import solve
from thornbed.tasks.multitask import Array, Loss, Node, Points


def local_only(
    points: Sequence[Points], loss: Loss, generator: torch.Generator, *, penalty: float, gap: float = 1e-6
) -> Array:
    """Return weights (d, m), each of which minimises its node's mean loss + penalty * |w|^2, for penalty > 0."""
    alone = Coupling(np.eye(len(points)), 0.0, penalty)
    return solve(points, alone, loss, generator, gap=gap).weights


def global_model(
    points: Sequence[Points], loss: Loss, generator: torch.Generator, *, penalty: float, gap: float = 1e-6
) -> Array:
    """Return weights (d, m) with m equal columns that minimise the mean loss over all points + penalty * |w|^2."""
    pooled = Points(np.concatenate([each.x for each in points]), np.concatenate([each.y for each in points]))
    weights = solve([pooled], Coupling(np.eye(1), 0.0, penalty), loss, generator, gap=gap).weights
    return np.repeat(weights, len(points), axis=1)


def errors(points: Sequence[Points], weights: Array, loss: Loss) -> Array:
    """Return for each node (m,) its error rate in [0, 1], or its root mean square error for the squared loss.

    A point on the boundary counts as wrong whatever its label.
    """
    scores = []
    for node, each in enumerate(points):
        z = each.x @ weights[:, node]
        scores.append(np.mean(each.y * z <= 0) if loss == "hinge" else np.sqrt(np.mean(np.square(z - each.y))))
    return np.array(scores)


def errors_by_node(nodes: Sequence[Node], weights: Array, loss: Loss) -> Array:
    """Return the error of each node on its test points, (m,): of one that pools others, the mean of theirs."""
    return np.array(
        [
            errors(parts, np.repeat(weights[:, [number]], len(parts), axis=1), loss).mean()
            for number, node in enumerate(nodes)
            for parts in [node.pools or (node.test,)]
        ]
    )
