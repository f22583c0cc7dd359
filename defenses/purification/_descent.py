"""Subgradient descent for many samples at once, each with its own rate and its own end.

Sums of norms are not smooth, so a fixed rate ends in a dance around the minimum whose steps never shrink, and a norm of
the gradient is no sign of having arrived. Here a sample that finds nothing better for a few steps goes back to the best
it had and halves its rate; it has converged once its rate is a small part of the first. For functions that rise
linearly away from their minimum, which is what exact recovery means, this converges geometrically (Davis, Drusvyatskiy,
MacPhee, Paquette, "Subgradient Methods for Sharp Weakly Convex Functions", JOTA 2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from thornbed.defenses.purification import Stage

PATIENCE = 4  # steps without a better value before the rate is halved
BETTER = 1e-3  # by which part of what a step of this rate could gain at most


def descend(
    name: str,
    objective: Callable[[Tensor, Tensor], Tensor],
    start: Tensor,
    unit: Tensor,
    *,
    steps: int,
    rate: float,
    precision: float,
) -> tuple[Tensor, Stage]:
    """Minimise `objective(x (k, ...), rows (k,)) -> (k,)` from start (n, ...); return the best points and the course.

    A step is x - r * unit * gradient, where `unit` (n,) > 0 is the size of the sample, and r begins at `rate`. A sample
    stops where its gradient is zero or not finite, or once its r is below precision * rate; those that have stopped are
    no longer computed. Where `start` or what the objective closes over requires a gradient, the whole course stays in
    the graph, at the memory of all its steps, and rates are constants of it.
    """
    n = len(start)
    graph = torch.is_grad_enabled() and objective(start[:1], torch.arange(min(n, 1))).requires_grad
    curve = torch.full((steps + 1, n), math.nan, dtype=start.dtype, device=start.device)
    taken = torch.zeros(n, dtype=torch.int64, device=start.device)
    converged = torch.zeros(n, dtype=torch.bool, device=start.device)
    found, lowest = start.clone(), torch.full_like(unit, math.inf)
    slope = torch.full((2, n), math.nan, dtype=start.dtype, device=start.device)

    rows = torch.arange(n, device=start.device)  # of the samples that still move; what follows is theirs alone
    x, best, size, rates = start, start, unit, rate * unit
    best_value, since = lowest, torch.zeros_like(taken)
    for step in range(steps + 1):
        with torch.enable_grad():
            x = x if graph else x.detach()
            point = x if x.requires_grad else x.requires_grad_()
            value = objective(point, rows)
            gradient = torch.autograd.grad(value.sum(), point, create_graph=graph)[0]
        with torch.set_grad_enabled(graph):
            now, wide = value.detach(), (-1, *[1] * (x.ndim - 1))
            curve[step, rows] = now
            better, squared = now < best_value, _norms(gradient)
            if step == 0:
                slope[0, rows] = squared.sqrt()
            slope[1, rows] = torch.where(better, squared.sqrt(), slope[1, rows])
            # A first value is better than infinity; the products below would be infinity minus infinity.
            clearly = torch.where(best_value.isinf(), better, now < best_value - BETTER * rates * squared)
            best = torch.where(better.view(wide), point if graph else point.detach(), best)
            best_value = torch.where(better, now, best_value)
            since = torch.where(clearly, 0, since + 1)
            stalled = since >= PATIENCE
            rates = torch.where(stalled, rates / 2, rates)
            since = torch.where(stalled, 0, since)
            flat = gradient.detach().flatten(1)
            still = (flat == 0).all(dim=1)
            over = still | ~flat.isfinite().all(dim=1) | (rates < precision * rate * size)
            if step == steps or bool(over.any()):
                ended = rows if step == steps else rows[over]
                which = slice(None) if step == steps else over
                found = found.index_copy(0, ended, best[which])
                lowest = lowest.index_copy(0, ended, best_value[which])
                taken[ended] = step
                converged[rows[over & flat.isfinite().all(dim=1)]] = True
                if step == steps or bool(over.all()):
                    break
            keep = ~over
            moved = torch.where(stalled.view(wide), best, point - rates.view(wide) * gradient)
            if bool(over.any()):
                rows, moved, best, size = rows[keep], moved[keep], best[keep], size[keep]
                rates, best_value, since = rates[keep], best_value[keep], since[keep]
            x = moved
    course = Stage(
        name=name,
        objective=curve,
        best=lowest,
        slope=slope,
        steps=taken,
        converged=converged,
        gap=torch.full_like(lowest, math.nan),
    )
    return found if graph else found.detach(), course


def _norms(gradient: Tensor) -> Tensor:
    """Return the squared norm of each sample's gradient (k,): a step of rate r gains r times that at most."""
    return gradient.detach().flatten(1).square().sum(dim=1)
