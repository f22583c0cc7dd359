"""Clip what the updates add to the last aggregate, not the updates themselves.

Paper: Karimireddy, He and Jaggi, "Learning from History for Byzantine Robust Optimization", ICML 2021, Algorithm 2.
The iteration starts from the aggregate of the last round, and from 0 in the first. They fix a radius per task and clip
momentum that each worker keeps; here the updates of a round are clipped (a client's own momentum lies inside one), and
a radius that is not given is the median of the distances from the centre, in each iteration anew.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from thornbed.defenses.clipping import clip_bound, clip_factors
from thornbed.defenses.distances import row_lengths
from thornbed.defenses.memory import remembered
from thornbed.defenses.reporting import acted
from thornbed.defenses.server import Server
from thornbed.defenses.update_matrix import Floats, like, update_matrix
from thornbed.defenses.weighted_mean import weighted_mean


def centered_clipping(
    updates: Tensor, weights: Tensor, server: Server, *, radius: float | None = None, num_iterations: int = 1
) -> Tensor:
    """Return v after num_iterations times v <- v + mean over clients of clip(update - v, radius).

    updates: (n, d) floats, finite. weights are ignored: they would undo the bound on what one client can do,
    radius / n in each iteration. radius > 0 is an L2 norm; None is the median of the distances from v. In the first
    round, or where v is far from all, one iteration walks at most a radius towards the updates.

    Memory: `centre`, v, (d,). Reports `clipped_share`, the share of updates further from v than the radius in the last
    iteration. A tensor on a GPU is copied to the CPU and the result back.

    Raises ValueError unless radius is finite and > 0 and num_iterations >= 1, or where the memory is of another d.
    """
    matrix = update_matrix("centered_clipping", updates, weights)
    if num_iterations < 1:
        raise ValueError(f"centered_clipping needs num_iterations >= 1: num_iterations = {num_iterations}")
    n, d = matrix.shape
    centre: Floats = remembered("centered_clipping", server, "centre", d, matrix.dtype)
    for _ in range(num_iterations):
        distances = row_lengths(matrix, centre)
        bound = clip_bound("centered_clipping", "radius", radius, distances)
        factors = clip_factors(distances, bound)
        # v + sum f (x - v) / n, with what belongs to v taken together
        moved = weighted_mean(matrix, np.arange(n), factors, divisor=float(n))
        centre = moved + centre.dtype.type(1 - factors.sum() / n) * centre
    server.memory["centre"] = torch.from_numpy(np.copy(centre))
    acted(clipped_share=float((distances > bound).mean()))
    return like(updates, centre)
