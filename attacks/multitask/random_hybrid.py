"""Inject random points into nodes drawn from all: what a search for better ones has to beat.

Paper: G. Sun, Y. Cong, J. Dong, Q. Wang, L. Lyu and J. Liu, "Data Poisoning Attacks on Federated Machine Learning",
IEEE Internet of Things Journal 2022, Section V-B, random hybrid attacks.
"""

from __future__ import annotations

import torch

from thornbed.attacks import Knowledge
from thornbed.attacks.multitask import Injection, Labels, NodesView, on_the_surface

NEEDS = frozenset({Knowledge.OWN_DATA})


def random_hybrid(
    view: NodesView,
    generator: torch.Generator,
    *,
    ratio: float = 0.2,
    radius: float | None = None,
    labels: Labels = "flipped",
) -> Injection:
    """Return points of random directions on the surface of the ball.

    Of the same generator it is where `at2fl(mode="hybrid", start="surface")` begins, with its nodes and labels. The
    options are those of `attacks.multitask._placing.Placing`. `attacks.multitask.random_twin` gives the points of a
    finished search random directions at equal norms.
    Raises ValueError for options out of range.
    """
    return on_the_surface("random_hybrid", view, generator, "hybrid", ratio, radius, labels)
