"""What the fusion centre makes of the embeddings it received, before it predicts; one way a file.

`NAME(embeddings (n, M, d), observed (M,), manifold, *, options) -> Purified`: n queries, M agents, d numbers each.
Inputs are never modified, nothing is random, and the samples of a batch do not influence each other.

An agent that is not observed is missing in every sample. A block of an observed agent that is not finite, or so large
that its norm is not, is missing in its sample, and reported: whoever sends a NaN must not decide what the others are
worth. Where a missing block needs a value to start from, it is the manifold's mean. A sample of which no block is left
has NaN as its features, so that nobody takes it for an answer.

A constant `ON_MANIFOLD` of each module says whether features are points of the manifold: then a classifier of them is
trained on AE(h) of clean embeddings h, as in Section 2.1 of the CoPur paper, and otherwise on h itself.

>>> import torch
>>> from thornbed.defenses.autoencoder_fit import fit_autoencoder
>>> from thornbed.defenses.purification.copur import copur
>>> rows = torch.randn(64, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).repeat(1, 5, 1)
>>> manifold = fit_autoencoder(rows, torch.Generator().manual_seed(0), bottleneck=2).autoencoder
>>> sent = rows[:3].clone()
>>> sent[:, :2] = 1e6  # two of five lie; three that agree are a majority
>>> bool(torch.allclose(copur(sent, torch.ones(5, dtype=torch.bool), manifold).features, rows[:3], atol=1e-4))
True
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from thornbed.defenses.reporting import Figure, acted

STILL = 1e-3
"""A block that moves by less of its size counts as left where it was."""
START = 1e-6
"""The least part of an objective's first value that its gap is told as a part of."""


class Manifold(Protocol):
    """What purification must know of clean embeddings; a `defenses.autoencoder.Autoencoder` is one."""

    @property
    def mean(self) -> Tensor:
        """(M, d): of clean embeddings."""

    @property
    def scale(self) -> Tensor:
        """(M,): the root mean square of a number of each agent's clean embeddings about their mean, above 0."""

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Return embeddings (n, M, d) as they are on the manifold, in the same shape; differentiable."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """How one descent went, sample by sample.

    Attributes
    ----------
    name : what was sought.
    objective : (steps + 1, n), before the first step and after each; NaN after the sample has stopped. It need not
        fall in every step, since it is not smooth: the best counts.
    best : (n,), the smallest of it, which is that of the point that was kept.
    slope : (2, n), norms of the gradient at the first point and at the one that was kept. A sum of norms has a minimum
        at a kink, where a gradient of size stays, as a rule: that the second is not 0 does not say that the descent
        failed. Of a reweighted stage it is the gradient in the code of the smoothed sum, which does go to 0.
    steps : (n,) int64, how many the sample took.
    converged : (n,) bool, whether it stopped by itself before the last step it was allowed. Of a descent this says that
        no step of its kind found anything better, and no more.
    gap : (n,), by how much `best` is above the minimum at most, as a point of the dual problem proves; NaN where nobody
        knows, as of descents that do not begin at a known minimum.
    """

    name: str
    objective: Tensor
    best: Tensor
    slope: Tensor
    steps: Tensor
    converged: Tensor
    gap: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Purified:
    """What came of a batch of queries.

    Attributes
    ----------
    features : (n, M, d), what the fusion centre predicts from; NaN for samples without a usable block.
    usable : (n, M) bool, the blocks that were looked at: of observed agents, and finite.
    rejected : (n, M) bool, those of observed agents that were not finite.
    moved : (n, M) float64, the distance from each usable block to its features; NaN for other blocks. A large one is
        what a corrupted agent looks like.
    clipped : (n, M) bool, usable blocks that were so far away that nearer ones stood for them; what theorems say of
        corrupted agents they say of corrupted and clipped ones together.
    stages : the descents, in order; none where nothing was sought.
    """

    features: Tensor
    usable: Tensor
    rejected: Tensor
    moved: Tensor
    clipped: Tensor
    stages: tuple[Stage, ...] = ()

    @property
    def answered(self) -> Tensor:
        """(n,) bool: whether the sample had a usable block."""
        return self.usable.any(dim=1)

    @property
    def gap(self) -> Tensor:
        """(n,): by how much the objective at the features is above its minimum at most, NaN where nobody knows."""
        return self.stages[-1].gap if self.stages else torch.full_like(self.moved[:, 0], torch.nan)


def received(name: str, embeddings: Tensor, observed: Tensor, manifold: Manifold) -> tuple[Tensor, Tensor]:
    """Check what the purification `name` was given; return the embeddings with missing blocks filled, and `usable`.

    Raises ValueError for embeddings that are no floating (n, M, d) of the manifold's shape, for `observed` that is no
    bool (M,), and where it observes nobody.
    """
    if embeddings.ndim != 3 or not embeddings.is_floating_point():
        raise ValueError(
            f"{name} needs floating-point embeddings (n, M, d): {embeddings.dtype} {tuple(embeddings.shape)}"
        )
    if embeddings.shape[1:] != manifold.mean.shape:
        raise ValueError(
            f"{name} needs embeddings of the manifold's (agents, dim): they have {tuple(embeddings.shape[1:])}, "
            f"the manifold {tuple(manifold.mean.shape)}"
        )
    agents = embeddings.shape[1]
    if observed.dtype != torch.bool or observed.shape != (agents,):
        raise ValueError(
            f"{name} needs one bool an agent in observed: M = {agents}, observed is {observed.dtype} "
            f"{tuple(observed.shape)}"
        )
    if not bool(observed.any()):
        raise ValueError(f"{name} needs at least one observed agent: M = {agents}, observed = 0")
    finite = block_norms(embeddings.detach().double() - manifold.mean.double()).isfinite()
    usable = finite & observed.to(embeddings.device)
    return torch.where(usable[:, :, None], embeddings, manifold.mean.to(embeddings)), usable


def purified(
    embeddings: Tensor,
    observed: Tensor,
    usable: Tensor,
    features: Tensor,
    stages: tuple[Stage, ...] = (),
    clipped: Tensor | None = None,
) -> Purified:
    """Gather what a purification found, and report it; clipped None: no block was.

    Reports `rejected_share` (blocks of observed agents that were not finite), `unanswered_share` (samples without any
    block), `moved_share` (usable blocks that were moved by more than STILL of their size), where blocks were rejected
    `rejected_by_agent` (M numbers of samples), where some were clipped `clipped_share`, and with stages
    `stage1_converged` (the share of samples), means of `stage1_steps`, of the objective at the first point and at the
    one kept, `stage1_from` and `stage1_to`, of the gradient's norm there, `stage1_slope_from` and `stage1_slope_to`,
    and so on; where minima are known, the largest part of the objective that is left at most, `stage1_gap`, of one that
    is at least START of what it was at the first point, since a manifold may pass through all that came. Samples
    without a block are left out of all these.
    """
    features = torch.where(usable.any(dim=1)[:, None, None], features, torch.nan)
    rejected = observed.to(usable.device) & ~usable
    # The square of a float32 may be too large for one.
    moved = torch.where(usable, block_norms(embeddings.double() - features.double()), torch.nan)
    figures: dict[str, Figure] = {}
    if len(usable):
        figures["rejected_share"] = float(rejected[:, observed.to(usable.device)].float().mean())
        figures["unanswered_share"] = float((~usable.any(dim=1)).float().mean())
        far = moved > STILL * block_norms(embeddings.double())
        figures["moved_share"] = float(far[usable].float().mean()) if bool(usable.any()) else 0.0
        if clipped is not None and bool(clipped.any()):
            figures["clipped_share"] = float(clipped[usable].float().mean())
        if bool(rejected.any()):
            figures["rejected_by_agent"] = [int(count) for count in rejected.sum(dim=0)]
        rows = usable.any(dim=1)
        for number, stage in enumerate(stages if bool(rows.any()) else (), start=1):
            means = {
                "converged": stage.converged,
                "steps": stage.steps,
                "from": stage.objective[0],
                "to": stage.best,
                "slope_from": stage.slope[0],
                "slope_to": stage.slope[1],
            }
            figures |= {f"stage{number}_{name}": float(each[rows].double().mean()) for name, each in means.items()}
            least = (START * stage.objective[0]).clamp_min(torch.finfo(stage.best.dtype).tiny)
            left = (stage.gap / torch.maximum(stage.best, least))[rows]
            if bool(left.isfinite().all()):
                figures[f"stage{number}_gap"] = float(left.max())
    acted(**figures)
    return Purified(
        features=features,
        usable=usable,
        rejected=rejected,
        moved=moved,
        clipped=torch.zeros_like(usable) if clipped is None else clipped,
        stages=stages,
    )


def block_norms(blocks: Tensor) -> Tensor:
    """Return the Euclidean norms (n, M) of blocks (n, M, d); at 0 all their derivatives are 0."""
    squares = blocks.square().sum(dim=2)
    zero = squares == 0
    # Of a root at 0 the gradient is infinite, and 0 times that no number, whichever of the two `where` would choose.
    return torch.where(zero, 0.0, torch.where(zero, 1.0, squares).sqrt())
