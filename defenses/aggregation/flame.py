"""Keep the majority that points the same way, clip it to the median norm, average, and add noise of that scale.

Paper: Nguyen et al., "FLAME: Taming Backdoors in Federated Learning", USENIX Security 2022, Algorithm 1: HDBSCAN over
cosine distances with clusters of at least n // 2 + 1, clipping to the median of all norms, noise of lambda times that
median (0.001 for images and words, 0.01 for network traffic). They take the cosines of local models, here of updates:
a model is mostly what all clients started from, so the angles between models are tiny and shrink as weights grow, while
those between updates see only what was learned this round. The norms are of the updates in both.

What HDBSCAN does here: with clusters of more than half no cluster can split, so the root of its tree is the only one,
and it keeps the rows that stay until the last split: with ties, all rows that single linkage has joined at the first
distance that joins a majority. So often just n // 2 + 1 rows are kept, also where all clients are honest. scikit-learn
counts a point as its own neighbour, where the authors' package does not; min_samples 1 and 2 give the same clusters,
because no distance is below the one to the nearest neighbour.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import HDBSCAN
from torch import Tensor

from thornbed.defenses.clipping import clip_factors
from thornbed.defenses.distances import cosine_distances, row_lengths
from thornbed.defenses.reporting import acted
from thornbed.defenses.server import Server
from thornbed.defenses.update_matrix import like, update_matrix
from thornbed.defenses.weighted_mean import weighted_mean


def flame(updates: Tensor, weights: Tensor, server: Server, *, noise: float = 0.001) -> Tensor:
    """Return the mean of the majority's updates, clipped to the median norm S, plus N(0, (noise * S)^2) per coordinate.

    updates: (n, d) floats, finite. weights are ignored: they are claims, and the cluster counts every client once.
    noise >= 0 is lambda; the norm of the noise is about noise * sqrt(d) * S, 3 S at d = 11 million with the default.
    Drawn from `server.generator`. No epsilon is claimed. An update of zeros has a distance of 1 from every other.

    Reports `selected` (rows, ascending) and `clipped_share`, the share of the selected that were longer than S. A
    tensor on a GPU is copied to the CPU and the result back.

    Raises ValueError when n < 2, or unless noise is finite and >= 0.
    """
    matrix = update_matrix("flame", updates, weights)
    n, d = matrix.shape
    if n < 2:
        raise ValueError(f"flame needs n >= 2 clients to have a majority: n = {n}")
    if not 0 <= noise < math.inf:
        raise ValueError(f"flame needs a finite noise >= 0: noise = {noise}")
    rows = majority(cosine_distances(matrix))
    norms = row_lengths(matrix)
    bound = float(np.median(norms))
    mean = weighted_mean(matrix, rows, clip_factors(norms[rows], bound), divisor=float(len(rows)))
    drawn = (noise * bound) * torch.randn(d, generator=server.generator, dtype=updates.dtype)
    acted(selected=rows.tolist(), clipped_share=float((norms[rows] > bound).mean()))
    return like(updates, mean + drawn.numpy())


def majority(distances: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the rows, ascending and more than half, of the one cluster in the symmetric (n, n) distances."""
    clusters = HDBSCAN(
        min_cluster_size=len(distances) // 2 + 1,
        min_samples=1,
        allow_single_cluster=True,
        metric="precomputed",
        copy=True,
    )
    return np.flatnonzero(clusters.fit_predict(distances) == 0)
