"""Take only the largest coordinates of what clipped updates have added up to, and keep the rest for later rounds.

Paper: Panda, Mahloujifar, Bhagoji, Chakraborty and Mittal, "SparseFed: Mitigating Model Poisoning Attacks in Federated
Learning with Sparsification", AISTATS 2022, Algorithm 1, with the momentum factor masking of Rothchild et al.,
"FetchSGD", ICML 2020. The learning rate of the server is 1, as the updates are steps already. The paper tunes the clip
norm and k for each task; here a norm that is not given is the median of the round, and k is a share of the coordinates.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thornbed.defenses.clipping import clip_bound, clip_factors
from thornbed.defenses.distances import row_lengths
from thornbed.defenses.memory import remembered
from thornbed.defenses.reporting import acted
from thornbed.defenses.server import Server
from thornbed.defenses.update_matrix import Floats, like, update_matrix
from thornbed.defenses.weighted_mean import weighted_mean


def sparse_fed(
    updates: Tensor,
    weights: Tensor,
    server: Server,
    *,
    top_k: float = 0.1,
    momentum: float = 0.9,
    norm: float | None = None,
) -> Tensor:
    """Return the accumulated error in its round(top_k * d) largest coordinates, at least one, and 0 elsewhere.

    updates: (n, d) floats, finite. weights are ignored: they would undo the bound on what one client can do. Each
    update is clipped to L2 norm `norm` (None: the median of the norms); u <- momentum * u + mean; error <- error + u.
    Both become 0 in the coordinates that are taken. Of coordinates of one size the first are taken. A coordinate that
    waits gathers up to 1 / (1 - momentum) times the mean in each round, so momentum = 0 makes the gentlest steps.

    Memory: `momentum` and `error`, (d,) each. Reports `masked_share`, the share of coordinates not taken, and
    `clipped_share`, that of updates longer than the bound. A tensor on a GPU is copied to the CPU and the result back.

    Raises ValueError unless 0 < top_k <= 1, 0 <= momentum < 1 and norm is finite and > 0, or where the memory is of
    another d.
    """
    matrix = update_matrix("sparse_fed", updates, weights)
    if not 0 < top_k <= 1:
        raise ValueError(f"sparse_fed needs 0 < top_k <= 1: top_k = {top_k}")
    if not 0 <= momentum < 1:
        raise ValueError(f"sparse_fed needs 0 <= momentum < 1: momentum = {momentum}")
    d = matrix.shape[1]
    norms = row_lengths(matrix)
    bound = clip_bound("sparse_fed", "norm", norm, norms)
    mean = weighted_mean(matrix, np.arange(len(norms)), clip_factors(norms, bound), divisor=float(len(norms)))
    velocity = mean.dtype.type(momentum) * remembered("sparse_fed", server, "momentum", d, mean.dtype) + mean
    error = remembered("sparse_fed", server, "error", d, mean.dtype) + velocity
    zero = mean.dtype.type(0)
    taken = _largest(error, max(1, round(top_k * d)))
    step = np.where(taken, error, zero)
    server.memory["momentum"] = torch.from_numpy(np.where(taken, zero, velocity))
    server.memory["error"] = torch.from_numpy(np.where(taken, zero, error))
    acted(masked_share=1 - int(taken.sum()) / d, clipped_share=float((norms > bound).mean()))
    return like(updates, step)


def _largest(values: Floats, count: int) -> NDArray[np.bool_]:
    """Mark the `count` values of the largest magnitude, the first ones among equals."""
    sizes = np.abs(values)
    least = np.partition(sizes, len(sizes) - count)[len(sizes) - count]
    taken = sizes > least
    ties = np.flatnonzero(sizes == least)
    taken[ties[: count - int(taken.sum())]] = True
    return taken
