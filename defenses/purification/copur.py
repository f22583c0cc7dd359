"""Find the point of the manifold with the smallest sum of distances to the agents: those that lie alone lose.

Paper: Liu, Xie, Koyejo, Li, "CoPur: Certifiably Robust Collaborative Inference via Feature Purification", NeurIPS 2022,
Section 2.3: stage one searches on the manifold, min over l' of the sum over observed i of |(h - AE(l'))_i|; stage two
from there min over l of the sum over observed i of |(h - l)_i| plus tau times the sum over all i of |(AE(l) - l)_i|,
the Lagrangian of Equation 6; what is returned is AE(l). Where tau is large enough the penalty is exact and stage two
stays on the manifold (Equation 5); a small tau lets l leave it where the manifold is only approximate.

What differs from the authors' code: missing agents do not count as observations of zero; the distances are l2 norms of
blocks, where it takes root mean squares and, in stage two, sums of absolute values; a descent ends when nothing better
is found and not by a norm of the gradient, which sums of norms do not lose at their minimum; rates are relative to
the size of each sample; and a batch is computed at once. And a block that is farther than FAR times that size from the
mean counts as one at that distance in its direction: it pulls as hard, since a distance has slope 1 everywhere, and the
digits of the sum are left to the others. A liar's block stays a liar's block; so that no honest one becomes one, the
agents' embeddings have to be of one scale, as those of extractors that were trained jointly are.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from defenses.purification import Manifold, Purified, Stage, block_norms, purified, received
from defenses.purification._descent import descend
from defenses.purification._reweighted import reweighted

ON_MANIFOLD = True
Solver = Literal["gradient", "reweighted"]
FAR = 100.0


def copur(
    embeddings: Tensor,
    observed: Tensor,
    manifold: Manifold,
    *,
    tau: float = 10.0,
    solver: Solver = "gradient",
    steps: int = 300,
    rate: float = 1.0,
    penalty_steps: int = 100,
    penalty_rate: float = 0.01,
    precision: float = 1e-4,
) -> Purified:
    """Return embeddings (n, M, d) purified by both stages, with the course of each.

    observed: (M,) bool, the agents that sent something. solver: how stage one is solved. "gradient" descends in at most
    `steps` steps of `rate`, which is a part of the sample's own size (the median norm of its blocks about the
    manifold's mean); it takes any manifold. "reweighted" solves weighted least squares again and again
    for manifolds whose decoder is affine, where stage one is convex and this finds its minimum; `steps` bounds it too.
    Stage two always descends, in at most `penalty_steps` steps of `penalty_rate`; 0 leaves it out. A sample stops by
    itself where its rate, halved at every stall, has come down to `precision` of the first (or, reweighted, where
    nothing moves by more than that part of its size), and then counts as converged.

    Theorems 2 and 4 speak of the minimum. "reweighted" reaches it; that a descent on a nonlinear manifold does, nobody
    says. Where the embeddings require a gradient the result has it, through every step taken.

    Reports what `defenses.purification.purified` does. Raises ValueError for options out of range, for "reweighted" on
    a manifold whose decoder is not affine, and as `defenses.purification.received` does.
    """
    _check(tau, solver, steps, rate, penalty_steps, penalty_rate, precision)
    filled, usable = received("copur", embeddings, observed, manifold)
    if len(filled) == 0:
        return purified(embeddings, observed, usable, filled)
    mean = manifold.mean.to(filled)
    unit = _size(filled - mean, usable)
    filled = _shortened(filled, mean, FAR * unit)

    def on_manifold(x: Tensor, rows: Tensor) -> Tensor:
        return (block_norms(filled[rows] - manifold(x)) * usable[rows]).sum(dim=1)

    def near_manifold(x: Tensor, rows: Tensor) -> Tensor:
        to_observed = (block_norms(filled[rows] - x) * usable[rows]).sum(dim=1)
        return to_observed + tau * block_norms(manifold(x) - x).sum(dim=1)

    stages: list[Stage] = []
    if solver == "reweighted":
        found, stage = reweighted(filled, usable, unit, manifold, steps=steps, precision=precision)
    else:
        # From afar a descent would spend its steps on the way.
        start = _shortened(filled, mean, unit)
        found, stage = descend("on the manifold", on_manifold, start, unit, steps=steps, rate=rate, precision=precision)
        found = manifold(found)
    stages.append(stage)
    if penalty_steps:
        found, stage = descend(
            "near the manifold", near_manifold, found, unit, steps=penalty_steps, rate=penalty_rate, precision=precision
        )
        stages.append(stage)
    return purified(embeddings, observed, usable, manifold(found), tuple(stages))


def _shortened(blocks: Tensor, mean: Tensor, most: Tensor) -> Tensor:
    """Return blocks (n, M, d) at most so far (n,) from the mean, in the direction in which they were."""
    lengths = block_norms((blocks - mean).double())  # the square of a float32 may be too large for one
    shares = most[:, None] / torch.maximum(lengths, most[:, None].double())
    return mean + (blocks - mean) * shares[:, :, None].to(blocks)


def _size(centred: Tensor, usable: Tensor) -> Tensor:
    """Return the median norm (n,) of each sample's usable blocks, 1 where that is 0; a minority cannot enlarge it."""
    norms = block_norms(centred.detach().double())
    size = torch.where(usable, norms, math.nan).nanmedian(dim=1).values.to(centred)
    return torch.where(size > 0, size, torch.ones_like(size))  # NaN, of a sample without blocks, becomes 1 as well


def _check(
    tau: float, solver: str, steps: int, rate: float, penalty_steps: int, penalty_rate: float, precision: float
) -> None:
    if solver not in get_args(Solver):
        raise ValueError(f"copur needs a solver out of {', '.join(get_args(Solver))}: solver = {solver}")
    for option, value in (("tau", tau), ("rate", rate), ("penalty_rate", penalty_rate)):
        if not 0 < value < math.inf:
            raise ValueError(f"copur needs a finite {option} > 0: {option} = {value}")
    if not 0 < precision < 1:
        raise ValueError(f"copur needs 0 < precision < 1: precision = {precision}")
    for option, number, least in (("steps", steps, 1), ("penalty_steps", penalty_steps, 0)):
        if number < least:
            raise ValueError(f"copur needs {option} >= {least}: {option} = {number}")
