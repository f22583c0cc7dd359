"""Clip the update and add Gaussian noise to it on the client, before the server sees anything.

Paper: K. Wei, J. Li, M. Ding, C. Ma, H. H. Yang, F. Farokhi, S. Jin, T. Q. S. Quek, H. V. Poor, "Federated Learning
with Differential Privacy: Algorithms and Performance Analysis", IEEE TIFS 2020, Algorithm 1, noise before aggregation.
They clip and perturb the local model; here it is the update, whose norm does not hold that of the shared start.
As a defense against backdoors, noise on the clients is studied by M. Naseri, J. Hayes, E. De Cristofaro, "Local and
Central Differential Privacy for Robustness and Privacy in Federated Learning", NDSS 2022, who perturb each local step
(DP-SGD) where this perturbs the result once.

No epsilon is claimed, and none is accounted: neither here, per round, nor over the rounds of a run. The noise is drawn
from a seeded generator so that runs repeat, and whoever knows the seed can subtract it. It is a mechanism to measure,
not a guarantee.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from thornbed.defenses.reporting import acted


def local_dp(
    update: Tensor, generator: torch.Generator, *, clip_norm: float = 1.0, noise_multiplier: float = 0.1
) -> Tensor:
    """Return update * min(1, clip_norm / |update|_2) + N(0, (noise_multiplier * clip_norm)^2) per coordinate, (d,).

    Reports `norm`, that of the update before clipping, `clipped_share`, 1 where it was above clip_norm and 0 where not
    (so the mean over clients is a share), and `noise_share`, the part of the noise in the norms of signal and noise.
    The norm of the noise is about noise_multiplier * clip_norm * sqrt(d): at d = 100,000 the defaults add 32 times
    the norm they allow the update. Raises ValueError unless clip_norm is finite and > 0, and noise_multiplier finite
    and >= 0.
    """
    if not 0 < clip_norm < math.inf:
        raise ValueError(f"local_dp needs a finite clip_norm > 0: clip_norm = {clip_norm}")
    if not 0 <= noise_multiplier < math.inf:
        raise ValueError(f"local_dp needs a finite noise_multiplier >= 0: noise_multiplier = {noise_multiplier}")
    norm = float(torch.linalg.vector_norm(update, dtype=torch.float64))
    kept = update * (clip_norm / norm) if norm > clip_norm else update
    noise = noise_multiplier * clip_norm * torch.randn(update.shape, generator=generator, dtype=update.dtype)
    loud = float(torch.linalg.vector_norm(noise, dtype=torch.float64))
    both = loud + min(norm, clip_norm)
    acted(norm=norm, clipped_share=int(norm > clip_norm), noise_share=loud / both if both else 0.0)
    return kept + noise
