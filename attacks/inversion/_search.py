"""The search for images: Adam on the images themselves, for many inversions at once, each as it was at its best step.

Papers: Zhu, Han, "Deep Leakage from Gradients", NeurIPS 2019, the search; Geiping, Bauermeister, Dröge, Moeller,
"Inverting Gradients", NeurIPS 2020, Section 5 and Appendix: Adam on the sign of the gradient, the box of valid images,
the step size divided by ten after 3/8, 5/8 and 7/8 of the steps. The best iterate and the best start are those with
the smallest loss of the attack itself; what the images really are plays no part.
"""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from thornbed.attacks.inversion import Reconstruction
from thornbed.attacks.inversion._problem import Objective, Problem, coordinates

Decay = Literal["none", "step", "cosine"]
Start = Literal["normal", "uniform", "zero"]
MILESTONES = (3 / 8, 5 / 8, 7 / 8)
LOOKS = 50  # steps between two looks at whether anything is left to search: each makes a GPU wait


@dataclass(frozen=True, kw_only=True)
class Search:
    """How images are searched for; see `attacks.inversion.agic.agic` for what the options mean."""

    steps: int
    step_size: float
    signed: bool
    decay: Decay
    box: bool
    start: Start
    restarts: int
    parallel: int
    snapshots: int

    def check(self, attack: str) -> None:
        """Raise ValueError, in the name of the attack, for options out of range."""
        for option, least in (("steps", 1), ("restarts", 1), ("parallel", 1), ("snapshots", 0)):
            if (number := getattr(self, option)) < least:
                raise ValueError(f"{attack} needs {option} >= {least}: {option} = {number}")
        if not 0 < self.step_size < math.inf:
            raise ValueError(f"{attack} needs a finite step_size > 0: step_size = {self.step_size}")
        for option, kinds in (("decay", Decay), ("start", Start)):
            if (value := getattr(self, option)) not in get_args(kinds):
                raise ValueError(f"{attack} needs {option} out of {', '.join(get_args(kinds))}: {option} = {value}")

    def rate(self, step: int) -> float:
        """Return the step size of a step, counted from 0."""
        done = step / self.steps
        if self.decay == "step":
            return self.step_size * 0.1 ** sum(done >= milestone for milestone in MILESTONES)
        if self.decay == "cosine":
            return self.step_size * (1 + math.cos(math.pi * done)) / 2
        return self.step_size

    def snapshot_steps(self) -> tuple[int, ...]:
        """Return after how many steps a snapshot is taken: evenly spread, from the start to the end."""
        if self.snapshots < 2:
            return (self.steps,) * self.snapshots
        return tuple(sorted({round(self.steps * i / (self.snapshots - 1)) for i in range(self.snapshots)}))


@dataclass(eq=False)
class _Inversion:
    """One start of one problem, and what came of it."""

    problem: Problem
    start: Tensor
    found: Reconstruction | None = field(default=None)


def search(
    problems: Sequence[Problem], objective: Objective, settings: Search, generator: torch.Generator
) -> list[Reconstruction]:
    """Return the best of `restarts` reconstructions of every problem, in their order.

    All starts are drawn first, problem by problem, so that they do not depend on what is computed together. A loss or
    gradient that is not finite ends its own inversion, which keeps the best iterate so far; the others go on. One whose
    update has nothing to go by (`Objective.fault`) is its start, and the model is not asked for it.
    """
    inversions = [_Inversion(p, _start(p, settings, generator)) for p in problems for _ in range(settings.restarts)]
    alike: dict[Hashable, list[_Inversion]] = {}
    faults = {id(problem): objective.fault(problem) for problem in problems}
    keys: dict[int, Hashable] = {id(each): objective.key(each) for each in problems if faults[id(each)] is None}
    for inversion in inversions:
        if (fault := faults[id(inversion.problem)]) is not None:
            inversion.found = _not_begun(inversion, settings, fault)
        else:
            alike.setdefault(keys[id(inversion.problem)], []).append(inversion)
    for group in alike.values():
        for begin in range(0, len(group), settings.parallel):
            _run(group[begin : begin + settings.parallel], objective, settings)
    found = [inversion.found for inversion in inversions if inversion.found is not None]
    tries = [found[begin : begin + settings.restarts] for begin in range(0, len(found), settings.restarts)]
    return [min(restarts, key=_smallest_loss) for restarts in tries]


def _smallest_loss(found: Reconstruction) -> float:
    finite = found.losses[found.losses.isfinite()]
    return float(finite.min()) if len(finite) else math.inf


def _start(problem: Problem, settings: Search, generator: torch.Generator) -> Tensor:
    """Draw (m, C, H, W) in the attack's coordinates, on the CPU, whatever the device."""
    mean, std = (constant.cpu() for constant in coordinates(problem.first))
    shape = (len(problem.labels), *problem.first.sample_shape)
    if settings.start == "zero":
        return torch.zeros(shape, dtype=mean.dtype)
    if settings.start == "uniform":
        return (torch.rand(shape, generator=generator, dtype=mean.dtype) - mean) / std
    return torch.randn(shape, generator=generator, dtype=mean.dtype)


def _not_begun(inversion: _Inversion, settings: Search, fault: str) -> Reconstruction:
    mean, std = (constant.cpu() for constant in coordinates(inversion.problem.first))
    images = (inversion.start * std + mean).clamp(0, 1)
    kept = settings.snapshot_steps()
    return Reconstruction(
        images=images,
        labels=inversion.problem.labels.cpu(),
        losses=torch.full((settings.steps + 1,), math.nan, dtype=images.dtype),
        best_step=0,
        seconds_per_step=0.0,
        together=1,
        snapshots=images.expand(len(kept), *images.shape),
        snapshot_steps=kept,
        failure=fault,
    )


def _run(inversions: Sequence[_Inversion], objective: Objective, settings: Search) -> None:
    """Search for the images of inversions that can be computed together."""
    first = inversions[0].problem.first
    losses_of = objective.of([inversion.problem for inversion in inversions])
    mean, std = coordinates(first)
    low, high = -mean / std, (1 - mean) / std
    together = len(inversions)
    z = torch.stack([inversion.start for inversion in inversions]).to(mean.device).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=settings.step_size)
    # What the loop writes is made once, before it.
    best = z.detach().clone()
    best_loss = torch.full((together,), math.inf, device=z.device, dtype=z.dtype)
    best_step = torch.zeros(together, dtype=torch.int64, device=z.device)
    ended = torch.full((together,), settings.steps + 1, dtype=torch.int64, device=z.device)
    losses = torch.full((settings.steps + 1, together), math.nan, device=z.device, dtype=z.dtype)
    kept = settings.snapshot_steps()
    snapshots = z.new_empty((len(kept), *z.shape))
    began = time.perf_counter()
    for step in range(settings.steps + 1):
        last = step == settings.steps
        with torch.set_grad_enabled(not last):
            loss = losses_of(z)
        gradient = torch.zeros_like(z) if last else torch.autograd.grad(loss.sum(), z)[0]
        with torch.no_grad():
            loss = loss.detach()
            alive = (ended > settings.steps) & loss.isfinite() & gradient.flatten(1).isfinite().all(dim=1)
            ended.masked_fill_((ended > settings.steps) & ~alive, step)
            better = alive & (loss < best_loss)
            torch.where(alive, loss, losses[step], out=losses[step])
            torch.where(better, loss, best_loss, out=best_loss)
            best_step.masked_fill_(better, step)
            wide = better.view(-1, *[1] * (z.dim() - 1))
            torch.where(wide, z, best, out=best)
            if step in kept:
                snapshots[kept.index(step)] = z
            if last or (step % LOOKS == 0 and not bool(alive.any())):
                break
            # An inversion that has ended stands still: without a gradient Adam has nothing to add but its momentum.
            gradient.masked_fill_(~alive.view(-1, *[1] * (z.dim() - 1)), 0)
            z.grad = gradient.sign_() if settings.signed else gradient
            optimizer.param_groups[0]["lr"] = settings.rate(step)
            optimizer.step()
            if settings.box:
                z.clamp_(min=low, max=high)
    if z.device.type == "cuda":
        torch.cuda.synchronize(z.device)
    seconds = (time.perf_counter() - began) / (step + 1)
    unseen = [place for place, when in enumerate(kept) if when > step]
    for place in unseen:
        snapshots[place] = z.detach()
    with torch.no_grad():
        best.mul_(std).add_(mean).clamp_(0, 1)
        snapshots.mul_(std).add_(mean).clamp_(0, 1)
    for i, inversion in enumerate(inversions):
        end = int(ended[i])
        failure = None if end > settings.steps else f"the loss or its gradient was not finite after {end} steps"
        inversion.found = Reconstruction(
            images=best[i].cpu(),
            labels=inversion.problem.labels.cpu(),
            losses=losses[:, i].cpu(),
            best_step=int(best_step[i]),
            seconds_per_step=seconds,
            together=together,
            snapshots=snapshots[:, i].cpu(),
            snapshot_steps=kept,
            failure=failure,
        )
