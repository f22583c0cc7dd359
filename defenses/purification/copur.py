"""Find the point of the manifold with the smallest sum of distances to the agents: those that lie alone lose.

Paper: Liu, Xie, Koyejo, Li, "CoPur: Certifiably Robust Collaborative Inference via Feature Purification", NeurIPS 2022,
Section 2.3: stage one searches on the manifold, min over l' of the sum over observed i of |(h - AE(l'))_i|; stage two
from there min over l of the sum over observed i of |(h - l)_i| plus tau times the sum over all i of |(AE(l) - l)_i|,
the Lagrangian of Equation 6; what is returned is AE(l). Where tau is large enough the penalty is exact and stage two
stays on the manifold (Equation 5); a small tau lets l leave it where the manifold is only approximate.

What differs from the authors' code: missing agents do not count as observations of zero; the distances are l2 norms of
blocks, where it takes root mean squares and, in stage two, sums of absolute values; a descent ends when nothing better
is found and not by a norm of the gradient, which sums of norms do not lose at their minimum; rates are relative to
the size of each sample; and a batch is computed at once. And a block that is farther than FAR times its agent's scale
from the mean (or, of a sample that is larger than that, FAR times what the sample's median agent is of its own) counts
as one at that distance in its direction: it pulls as hard, since a distance has slope 1 everywhere, and the digits of
the sum are left to the others. A liar's block stays a liar's block; an honest one that is so far away, as none of the
rows that the manifold was learned from was, counts as a liar's from then on, and is told as `clipped`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from thornbed.defenses.autoencoder import Autoencoder
from thornbed.defenses.purification import Manifold, Purified, Stage, block_norms, purified, received
from thornbed.defenses.purification._descent import descend
from thornbed.defenses.purification._reweighted import reweighted

ON_MANIFOLD = True
Solver = Literal["auto", "gradient", "reweighted"]
MOST_STEPS = 100_000  # each is remembered for every sample
FAR = {"gradient": 1e2, "reweighted": 1e4}  # a descent has the digits of its embeddings, the other double precision


def copur(
    embeddings: Tensor,
    observed: Tensor,
    manifold: Manifold,
    *,
    tau: float = 10.0,
    solver: Solver = "auto",
    steps: int = 300,
    rate: float = 1.0,
    penalty_steps: int = 100,
    penalty_rate: float = 0.01,
    precision: float = 1e-4,
) -> Purified:
    """Return embeddings (n, M, d) purified by both stages, with the course of each.

    observed: (M,) bool, the agents that sent something. solver: how stage one is solved. "gradient" descends in at most
    `steps` steps of `rate`, which is a part of the sample's own size (the scale of the median agent, times what the
    median agent sends in its scale where that is more than 1); it takes any manifold. "reweighted" solves weighted
    least squares again and again for manifolds whose decoder is affine, where stage one is convex; `steps` bounds it
    too. "auto" is "reweighted" where the decoder is affine and "gradient" where not. Stage two always descends, in at
    most `penalty_steps` steps of `penalty_rate`; 0 leaves it out. A sample stops by itself where its rate, halved at
    every stall, has come down to `precision` of the first (or, reweighted, where nothing moves by more than that part
    of its size), and then counts as converged.

    Theorems 2 and 4 speak of the minimum. How far "reweighted" is from it at most is the `gap` of its stage, and with
    tau >= 1 that of stage two, which has the same minimum then; of a descent on a curved manifold nobody knows. Stage
    two descends by subgradients: with tau of 1 and above every small step off an affine manifold costs more than it
    gains, so that it stays where it began, at the minimum or not. Where the embeddings require a gradient the result
    has it, through every step taken.

    Reports what `defenses.purification.purified` does. Raises ValueError for options out of range, for "reweighted" on
    a manifold whose decoder is not affine, and as `defenses.purification.received` does.
    """
    _check(tau, solver, steps, rate, penalty_steps, penalty_rate, precision)
    filled, usable = received("copur", embeddings, observed, manifold)
    if len(filled) == 0:
        return purified(embeddings, observed, usable, filled)
    mean = manifold.mean.to(filled)
    if solver == "auto":
        solver = "reweighted" if isinstance(manifold, Autoencoder) and manifold.is_affine else "gradient"
    typical = manifold.scale.to(filled) * math.sqrt(filled.shape[2])
    # The sample's size: as many times its own scale as the median agent sends, and once at least.
    times = _median((filled - mean) / typical[:, None], usable).clamp_min(1)
    unit = times * typical.median()
    most = FAR[solver] * times[:, None] * typical
    clipped = usable & (block_norms((filled - mean).detach().double()) > most.double())
    filled = _shortened(filled, mean, most)

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
        start = _shortened(filled, mean, unit[:, None].expand(usable.shape))
        found, stage = descend("on the manifold", on_manifold, start, unit, steps=steps, rate=rate, precision=precision)
        found = manifold(found)
    stages.append(stage)
    if penalty_steps:
        found, stage = descend(
            "near the manifold", near_manifold, found, unit, steps=penalty_steps, rate=penalty_rate, precision=precision
        )
        if tau >= 1:
            # |h - l| + tau |AE(l) - l| is at least |h - AE(l)|, so that nothing is below the minimum on the manifold.
            rounding = filled.shape[1] * torch.finfo(filled.dtype).eps * stage.best
            stage = replace(stage, gap=(stage.best - (stages[0].best - stages[0].gap)).clamp_min(0) + rounding)
        stages.append(stage)
        found = manifold(found)
    return purified(embeddings, observed, usable, found, tuple(stages), clipped)


def _shortened(blocks: Tensor, mean: Tensor, most: Tensor) -> Tensor:
    """Return blocks (n, M, d) at most so far (n, M) from the mean, in the direction in which they were."""
    lengths = block_norms((blocks - mean).double())  # the square of a float32 may be too large for one
    shares = most / torch.maximum(lengths, most.double())
    return mean + (blocks - mean) * shares[:, :, None].to(blocks)


def _median(centred: Tensor, usable: Tensor) -> Tensor:
    """Return the median norm (n,) of each sample's usable blocks, 0 of none; a minority cannot enlarge it."""
    norms = block_norms(centred.detach().double())
    return torch.where(usable, norms, math.nan).nanmedian(dim=1).values.nan_to_num(nan=0.0).to(centred)


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
        if not least <= number <= MOST_STEPS:
            raise ValueError(f"copur needs {least} <= {option} <= {MOST_STEPS}: {option} = {number}")
