"""Find images whose gradient points where the one that was seen points, and which have little total variation.

Paper: J. Geiping, H. Bauermeister, H. Dröge, M. Moeller, "Inverting Gradients - How easy is it to break privacy in
federated learning?", NeurIPS 2020, Equation 4: cosine distance, Adam on the sign of the gradient, images kept in their
box; Section 6: several local steps are simulated. The AGIC paper's experiments take plain Adam: signed=False.
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


def inverting_gradients(
    observations: Sequence[Observation],
    generator: torch.Generator,
    *,
    steps: int = 10_000,
    step_size: float = 0.1,
    total_variation: float = 1e-4,
    signed: bool = True,
    decay: Decay = "step",
    box: bool = True,
    start: Start = "normal",
    restarts: int = 1,
    labels: Labels = "gradinversion",
    local_steps: LocalSteps = "simulated",
    parallel: int = 16,
    snapshots: int = 0,
) -> list[Reconstruction]:
    """Return a reconstruction of each observation; the options have the meaning they have for `agic`.

    Raises ValueError for options out of range, labels that cannot be inferred, and local steps to be simulated at an
    unknown learning rate.
    """
    settings = Search(
        steps=steps,
        step_size=step_size,
        signed=signed,
        decay=decay,
        box=box,
        start=start,
        restarts=restarts,
        parallel=parallel,
        snapshots=snapshots,
    )
    objective = Objective(distance="cosine", local_steps=local_steps, total_variation=total_variation)
    settings.check("inverting_gradients")
    objective.check("inverting_gradients", observations)
    inferred = [infer_labels("inverting_gradients", each, labels) for each in observations]
    problems = [alone(each, own, weigh_all(each.model)) for each, own in zip(observations, inferred, strict=True)]
    return search(problems, objective, settings, generator)
