"""Points injected into the data of some nodes, so that the models of the target nodes go wrong; one attack a file.

`NAME(view, generator, *, options) -> Injection`. Labels of injected points are fixed, features move in a ball. Inputs
are never modified; randomness comes from the generator alone. An example without any engine:

    >>> import torch
    >>> from thornbed.attacks.multitask import NodesView
    >>> from thornbed.attacks.multitask.at2fl import at2fl
    >>> from thornbed.tasks.mocha.objective import Coupling, unrelated
    >>> from thornbed.tasks.multitask.digit_nodes import digit_nodes
    >>> train = digit_nodes(None).train[:4]
    >>> related = Coupling(unrelated(4), 0.01, 0.01)
    >>> view = NodesView(points=train, targets=(0, 1), loss="hinge", coupling=related, intercept=True)
    >>> found = at2fl(view, torch.Generator().manual_seed(0), mode="indirect", iterations=3)
    >>> sorted(found.points), found.losses.shape
    ([2, 3], (4,))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from thornbed.tasks.mocha.objective import Coupling
from thornbed.tasks.multitask import Array, Loss, Points

Mode = Literal["direct", "indirect", "hybrid"]
"""Where points are injected: into the targets; into as many others; into as many of all nodes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NodesView:
    """What the attacker knows of the federation.

    Attributes
    ----------
    points : the clean training points of all m nodes, with which it looks ahead.
    targets : the nodes whose models it wants to be wrong, by number.
    loss, coupling : of the federation; the relation matrix is the one it begins with.
    intercept : whether the last column is a 1, which an injected point has too.
    floor : where the federation learns its relation matrix, the floor it does it with; None where that is fixed.
    sources : the nodes that points go into, where the attacker has no others; None where it takes which it likes.

    Raises ValueError where targets are no nodes or stand twice, and where the relation matrix is of other nodes.
    """

    points: tuple[Points, ...]
    targets: tuple[int, ...]
    loss: Loss
    coupling: Coupling
    intercept: bool
    floor: float | None = None
    sources: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        m = len(self.points)
        if len(self.coupling.omega) != m:
            raise ValueError(f"a relation matrix of {len(self.coupling.omega)} nodes, and points of {m}")
        if not self.targets or len(set(self.targets)) != len(self.targets):
            raise ValueError(f"an attack has at least one target, and each once: targets = {self.targets}")
        for name, nodes in (("targets", self.targets), ("sources", self.sources or ())):
            if not all(0 <= node < m for node in nodes):
                raise ValueError(f"{name} are nodes from 0 to {m - 1}: {name} = {nodes}")

    @property
    def span(self) -> tuple[float, float]:
        """The smallest and the largest target of all nodes: the scale of a score, which is no secret."""
        return min(each.y.min() for each in self.points), max(each.y.max() for each in self.points)

    @property
    def movable(self) -> int:
        """Number of features, without the intercept: the leading columns, which an injected point may choose."""
        return self.points[0].x.shape[1] - self.intercept


@dataclass(frozen=True, eq=False)
class Injection:
    """What an attack found.

    Attributes
    ----------
    points : by source node, the points to add to its training data.
    losses : (iterations + 1,) what the attacker maximises, the targets' summed mean loss on their clean training
        points, before the first iteration and after each; (0,) of an attack that looks at nothing. Of several searches,
        those of the best.
    best_iteration : the points are those after so many iterations, whose loss is the largest.
    """

    points: Mapping[int, Points]
    losses: Array
    best_iteration: int = 0

    def into(self, points: Sequence[Points]) -> tuple[Points, ...]:
        """Return the training points of all nodes with the injected ones behind those of their nodes."""
        return tuple(each.join(self.points[node]) if node in self.points else each for node, each in enumerate(points))


def random_twin(injection: Injection, view: NodesView, generator: torch.Generator) -> Injection:
    """Return an injection of the same nodes, labels and norms whose directions are random: what the search is worth."""
    points = {
        node: Points(turned(each.x, view.movable, generator), each.y.copy()) for node, each in injection.points.items()
    }
    return Injection(points, np.empty(0))


def turned(x: Array, movable: int, generator: torch.Generator) -> Array:
    """Return rows (n, d) whose first `movable` columns keep their norm and get a random direction (uniform)."""
    drawn = torch.randn(len(x), movable, generator=generator, dtype=torch.float64).numpy()
    lengths = np.linalg.norm(x[:, :movable], axis=1) / np.linalg.norm(drawn, axis=1)
    return np.concatenate([drawn * lengths[:, None], x[:, movable:]], axis=1)
