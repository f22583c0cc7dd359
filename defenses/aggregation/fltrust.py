"""Trust each update as far as it points where the server's own update points, and give all of them its length.

Paper: Cao, Fang, Liu and Gong, "FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping", NDSS 2021,
Section IV and Algorithm 2, with a global learning rate of 1. Where nobody is trusted they leave 0 / 0; here the model
stays as it is for that round.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from thornbed.defenses.distances import cosines_with, row_lengths
from thornbed.defenses.reporting import acted
from thornbed.defenses.server import Server
from thornbed.defenses.update_matrix import LARGEST, Floats, like, update_matrix
from thornbed.defenses.weighted_mean import weighted_mean


def fltrust(updates: Tensor, weights: Tensor, server: Server, *, num_root: int = 100) -> Tensor:
    """Return the mean of the updates, each rescaled to the norm of the root update, weighted by their trust.

    updates: (n, d) floats, finite. weights are ignored: they are claims, and trust takes their place. The root update
    is what the server's own training on num_root >= 1 trusted samples makes of the same model, 100 in the paper. The
    trust of an update is max(0, cosine with the root update), 0 for an update of zeros. Where all trust is 0 (also
    when the root update is zero) the result is 0: no step. It is NOT enough for an attacker to be a minority: one that
    agrees in most coordinates leads the others (Wang et al., AISTATS 2024, Proposition 5).

    Reports `trust_scores`, one a client in [0, 1], `distrusted_share`, the share of clients with a trust of 0, and
    `withheld_share`, what the mean trust lacks of 1: also where nobody is distrusted whole, the rule acts. A tensor on
    a GPU is copied to the CPU and the result back.

    Raises ValueError when num_root < 1, where the server has no trusted data, or when the root update is not finite or
    has another d.
    """
    matrix = update_matrix("fltrust", updates, weights)
    if num_root < 1:
        raise ValueError(f"fltrust needs num_root >= 1: num_root = {num_root}")
    root = _checked(server.root_update(num_root), matrix.shape[1], updates.dtype)
    trust = np.maximum(cosines_with(matrix, root), 0.0)
    acted(
        trust_scores=trust.tolist(),
        distrusted_share=float((trust == 0).mean()),
        withheld_share=float(1 - trust.mean()),
    )
    if not trust.any():
        return like(updates, np.zeros_like(root))
    rows = np.flatnonzero(trust)
    norms = row_lengths(matrix)[rows]
    scales = trust[rows] * row_lengths(root[None]) / norms
    return like(updates, weighted_mean(matrix, rows, scales, divisor=float(trust.sum())))


def _checked(update: Tensor, d: int, dtype: torch.dtype) -> Floats:
    root: Floats = np.ascontiguousarray(update.detach().cpu().to(dtype).numpy())
    if root.shape != (d,):
        raise ValueError(f"fltrust needs a root update of shape [{d}]: got {list(root.shape)}")
    if wrong := int((~(np.abs(root) <= LARGEST)).sum()):  # also NaN
        raise ValueError(f"fltrust needs a finite root update: {wrong} of {d} are not, or lie beyond {LARGEST:g}")
    return root
