"""Shorten long updates, average them, and add a little Gaussian noise to the average.

Paper: Sun, Kairouz, Suresh and McMahan, "Can You Really Backdoor Federated Learning?", 2019, Section 4 (norm bounding
and weak differential privacy). They fix a bound, tuned per task, and a standard deviation of 0.025; Wang et al.,
"Attack of the Tails", NeurIPS 2020, bound by 2 on CIFAR-10. Here a bound that is not given is the median of the norms
of the round: it needs no tuning, and half of the clients are clipped.

No epsilon is claimed, and none is accounted: the noise is too weak for one, does not grow with the bound, and is drawn
from a seeded generator, so whoever knows the seed can subtract it. It is there to blur a backdoor, not for privacy.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from thornbed.defenses.clipping import clip_bound, clip_factors
from thornbed.defenses.distances import row_lengths
from thornbed.defenses.reporting import acted
from thornbed.defenses.server import Server
from thornbed.defenses.update_matrix import like, update_matrix
from thornbed.defenses.weighted_mean import weighted_mean


def weak_dp(
    updates: Tensor, weights: Tensor, server: Server, *, norm: float | None = None, noise: float = 0.025
) -> Tensor:
    """Return the mean of the updates, each clipped to L2 norm `norm`, plus N(0, noise^2) in every coordinate.

    updates: (n, d) floats, finite. weights are ignored: a claim of many samples would undo the bound on what one
    client can do, norm / n. norm None is the median of the norms. noise >= 0 is the standard deviation in the step
    itself, in the units of the parameters: its norm is about noise * sqrt(d), 8 at d = 100,000 with the default, which
    can be far more than what the updates hold. Drawn from `server.generator`.

    Reports `clipped_share`, the share of updates longer than the bound, and `noise_share`, the part of the noise in
    the norms of mean and noise. A tensor on a GPU is copied to the CPU and the result back.

    Raises ValueError unless norm is finite and > 0 and noise finite and >= 0.
    """
    matrix = update_matrix("weak_dp", updates, weights)
    if not 0 <= noise < math.inf:
        raise ValueError(f"weak_dp needs a finite noise >= 0: noise = {noise}")
    norms = row_lengths(matrix)
    bound = clip_bound("weak_dp", "norm", norm, norms)
    mean = weighted_mean(matrix, np.arange(len(norms)), clip_factors(norms, bound), divisor=float(len(norms)))
    drawn = noise * torch.randn(len(mean), generator=server.generator, dtype=updates.dtype)
    signal, loud = row_lengths(np.stack([mean, drawn.numpy()])).tolist()
    acted(
        clipped_share=float((norms > bound).mean()),
        noise_share=loud / (signal + loud) if loud else 0.0,
    )
    return like(updates, mean + drawn.numpy())
