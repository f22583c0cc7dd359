"""Send the opposite of the honest update.

Paper: L. Li, W. Xu, T. Chen, G. B. Giannakis, Q. Ling, "RSA: Byzantine-Robust Stochastic Aggregation Methods for
Distributed Learning from Heterogeneous Datasets", AAAI 2019, the sign-flipping attack of the experiments, which
multiplies what a worker would send by a negative constant. Here it multiplies the update, not the model: the server
knows the model it sent, and the opposite of a whole model would stand out at once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from thornbed.attacks import Knowledge
from thornbed.attacks.update import own_update

NEEDS = frozenset({Knowledge.OWN_DATA, Knowledge.SERVER_MODEL})


def sign_flip(peers: Tensor, generator: torch.Generator, *, factor: float = 1.0) -> Tensor:
    """Return -factor * peers[0], (d,); nothing is drawn from the generator.

    With factor 1 the norm is that of the honest update. Raises ValueError unless factor is finite and > 0.
    """
    if not 0 < factor < math.inf:
        raise ValueError(f"sign_flip needs a finite factor > 0: factor = {factor}")
    return -factor * own_update(peers)
