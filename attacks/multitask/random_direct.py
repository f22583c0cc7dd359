"""Inject random points into the target nodes: what a search for better ones has to beat.

Paper: G. Sun, Y. Cong, J. Dong, Q. Wang, L. Lyu and J. Liu, "Data Poisoning Attacks on Federated Machine Learning",
IEEE Internet of Things Journal 2022, Section V-B, random direct attacks.
"""

from __future__ import annotations

import torch

from thornbed.attacks import Knowledge
from thornbed.attacks.multitask import Injection, Labels, NodesView, on_the_surface

NEEDS = frozenset({Knowledge.OWN_DATA})


def random_direct(
    view: NodesView,
    generator: torch.Generator,
    *,
    ratio: float = 0.2,
    radius: float | None = None,
    labels: Labels = "flipped",
) -> Injection:
    """Return points of random directions on the surface of the ball.

    Of the same generator it is where `at2fl(mode="direct", start="surface")` begins, with its nodes and labels. The
    options are those of `attacks.multitask._placing.Placing`. `attacks.multitask.random_twin` gives the points of a
    finished search random directions at equal norms.
    Raises ValueError for options out of range.
    """
    return on_the_surface("random_direct", view, generator, "direct", ratio, radius, labels)
