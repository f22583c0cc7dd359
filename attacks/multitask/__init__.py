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

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

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


Labels = Literal["flipped", "copied", "random"]
Start = Literal["clean", "surface"]
USUAL = 0.95
"""Share of its clean points that lie in the ball of a source whose radius nobody gave."""


@dataclass(frozen=True, kw_only=True)
class Placing:
    """What every attack of this folder has as options.

    `mode`: see `Mode`. `ratio` in [0, 10]: in each source, this share of its clean points, rounded up, is injected; 0
    is the control, the same targets and nothing injected. `radius`: of the ball for the features, around the origin;
    None is the norm that 19 of 20 of the source's clean points do not exceed, so that none of them is an outlier (the
    longest clean point may be one). `labels`: those of as many clean points of the source, drawn at random: turned over
    ("flipped"; a number is mirrored at the middle of the range of all nodes), as they are ("copied"), or "random",
    which are 1 or -1, or numbers drawn uniformly from the range of all nodes. `start`: the features are those of the
    same clean points ("clean"), or have a random direction on the surface of the ball. `within` in (0, 1]: the part of
    the radius that is used.
    """

    mode: Mode
    ratio: float
    radius: float | None
    labels: Labels
    start: Start
    within: float = 1.0

    def check(self, attack: str) -> None:
        """Raise ValueError, with the name of the attack, for an option out of range."""
        if self.mode not in get_args(Mode):
            raise ValueError(f"{attack} has mode out of {', '.join(get_args(Mode))}: mode = {self.mode}")
        if self.labels not in get_args(Labels):
            raise ValueError(f"{attack} has labels out of {', '.join(get_args(Labels))}: labels = {self.labels}")
        if self.start not in get_args(Start):
            raise ValueError(f"{attack} has start out of {', '.join(get_args(Start))}: start = {self.start}")
        if not 0 <= self.ratio <= 10:
            raise ValueError(f"{attack} needs 0 <= ratio <= 10: ratio = {self.ratio}")
        if self.radius is not None and not 0 < self.radius < 1e100:
            raise ValueError(f"{attack} needs 0 < radius < 1e100: radius = {self.radius}")

    def sources(self, attack: str, view: NodesView, generator: torch.Generator) -> list[int]:
        """Return the nodes that points go into, ascending: the attacker's own, or as many as there are targets.

        Raises ValueError where an indirect attack has fewer nodes beside its targets, and where the attacker's own are
        not those of the mode.
        """
        m, count = len(view.points), len(view.targets)
        if view.sources is not None:
            shared = set(view.sources) & set(view.targets)
            if (self.mode == "direct" and set(view.sources) != set(view.targets)) or (
                self.mode == "indirect" and shared
            ):
                raise ValueError(
                    f"{attack} is {self.mode}, so its sources are "
                    f"{'its targets' if self.mode == 'direct' else 'none of its targets'}: "
                    f"sources = {view.sources}, targets = {view.targets}"
                )
            return sorted(set(view.sources))
        if self.mode == "direct":
            return sorted(view.targets)
        free = [node for node in range(m) if self.mode == "hybrid" or node not in view.targets]
        if len(free) < count:
            raise ValueError(
                f"{attack} needs as many nodes beside the targets as there are targets: {count} targets of {m} nodes"
            )
        drawn = torch.randperm(len(free), generator=generator)[:count].tolist()
        return sorted(free[each] for each in drawn)

    def radius_of(self, points: Points, view: NodesView) -> float:
        """Return the radius of the ball for points injected into a node."""
        if self.radius is not None:
            return self.within * self.radius
        return self.within * float(np.quantile(np.linalg.norm(points.x[:, : view.movable], axis=1), USUAL))

    def place(self, view: NodesView, source: int, generator: torch.Generator) -> Points:
        """Return the points that a search begins with, with their labels."""
        clean = view.points[source]
        count = math.ceil(Fraction(str(self.ratio)) * len(clean))  # 0.07 of 100 are 7: not so in floats
        rows = torch.randint(len(clean), (count,), generator=generator).numpy()
        if self.start == "clean":
            x = into_ball(clean.x[rows], view.movable, self.radius_of(clean, view))
            return Points(x, self._labels(view, clean, rows, generator))
        x = np.ones((count, clean.x.shape[1]))
        x[:, : view.movable] *= self.radius_of(clean, view) / math.sqrt(view.movable)
        return Points(turned(x, view.movable, generator), self._labels(view, clean, rows, generator))

    def _labels(self, view: NodesView, clean: Points, rows: np.ndarray, generator: torch.Generator) -> Array:
        y, (low, high) = clean.y[rows], view.span
        if self.labels == "copied":
            return y
        if self.labels == "flipped":
            return -y if view.loss == "hinge" else low + high - y
        drawn = torch.rand(len(rows), generator=generator, dtype=torch.float64).numpy()
        if view.loss == "hinge":
            return np.where(drawn < 0.5, -1.0, 1.0)
        return low + drawn * (high - low)


def into_ball(x: Array, movable: int, radius: float) -> Array:
    """Return rows (n, d) whose first `movable` columns are shortened to norm `radius` where they are longer."""
    norms = np.linalg.norm(x[:, :movable], axis=1, keepdims=True)
    # A hair less than the radius, so that rounding does not leave the ball.
    factors = np.where(norms > radius, radius * (1 - 1e-12) / np.where(norms > 0, norms, 1.0), 1.0)
    return np.concatenate([x[:, :movable] * factors, x[:, movable:]], axis=1)


def injected_at_random(attack: str, view: NodesView, placing: Placing, generator: torch.Generator) -> dict[int, Points]:
    """Return points where every attack begins, by source node."""
    placing.check(attack)
    if placing.ratio == 0:
        return {}
    return {source: placing.place(view, source, generator) for source in placing.sources(attack, view, generator)}


def on_the_surface(
    attack: str,
    view: NodesView,
    generator: torch.Generator,
    mode: Mode,
    ratio: float,
    radius: float | None,
    labels: Labels,
) -> Injection:
    """Return what the random attack of that name injects."""
    placing = Placing(mode=mode, ratio=ratio, radius=radius, labels=labels, start="surface")
    return Injection(injected_at_random(attack, view, placing, generator), np.empty(0))
