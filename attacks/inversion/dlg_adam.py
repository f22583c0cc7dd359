"""Find images whose gradient lies nearest to the one that was seen, in squared L2 distance, with Adam.

Paper: L. Zhu, S. Han, "Deep Leakage from Gradients", NeurIPS 2019, the distance; J. Xu, C. Hong, J. Huang, L. Y. Chen,
J. Decouchant, "AGIC: Approximate Gradient Inversion Attack on Federated Learning", SRDS 2022, Section V-A: Adam in
place of L-BFGS, which fails on large networks, and labels inferred beforehand in place of a search for them as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from thornbed.attacks import Knowledge
from thornbed.attacks.inversion import LocalSteps, Observation, Reconstruction
from thornbed.attacks.inversion._labels import Labels, infer_labels
from thornbed.attacks.inversion._problem import Objective, alone, weigh_all
from thornbed.attacks.inversion._search import Decay, Search, Start, search

NEEDS = frozenset({Knowledge.SERVER_MODEL, Knowledge.HONEST_UPDATES})


def dlg_adam(
    observations: Sequence[Observation],
    generator: torch.Generator,
    *,
    steps: int = 10_000,
    step_size: float = 0.1,
    decay: Decay = "none",
    box: bool = False,
    start: Start = "normal",
    restarts: int = 1,
    labels: Labels = "gradinversion",
    local_steps: LocalSteps = "simulated",
    parallel: int = 16,
    snapshots: int = 0,
) -> list[Reconstruction]:
    """Return a reconstruction of each observation; the options have the meaning they have for `agic`.

    The distance is that of the gradients themselves, so their scale must be right: the learning rate of the client has
    to be known. Raises ValueError for options out of range, labels that cannot be inferred, and local steps to be
    simulated at an unknown learning rate.
    """
    settings = Search(
        steps=steps,
        step_size=step_size,
        signed=False,
        decay=decay,
        box=box,
        start=start,
        restarts=restarts,
        parallel=parallel,
        snapshots=snapshots,
    )
    objective = Objective(distance="l2", local_steps=local_steps, total_variation=0.0)
    settings.check("dlg_adam")
    objective.check("dlg_adam", observations)
    problems = [alone(each, infer_labels("dlg_adam", each, labels), weigh_all(each.model)) for each in observations]
    return search(problems, objective, settings, generator)
