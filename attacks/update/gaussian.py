"""Send Gaussian noise in place of the update.

Paper: P. Blanchard, E. M. El Mhamdi, R. Guerraoui, J. Stainer, "Machine Learning with Adversaries: Byzantine Tolerant
Gradient Descent", NeurIPS 2017, the Gaussian attack of the experiments: mean zero, isotropic, standard deviation 200.
Theirs takes the place of a gradient, which the learning rate then shrinks; here `std` is in units of the update, so
the default is the stronger of the two. It is meant to break averaging, not to hide: for a test of a defense's
reach take a std near the honest updates' root mean square.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from thornbed.attacks import Knowledge
from thornbed.attacks.update import own_update

NEEDS = frozenset({Knowledge.SERVER_MODEL})


def gaussian(peers: Tensor, generator: torch.Generator, *, std: float = 200.0) -> Tensor:
    """Return independent draws of N(0, std^2), (d,): of the honest update only the length is used.

    Raises ValueError unless std is finite and > 0.
    """
    if not 0 < std < math.inf:
        raise ValueError(f"gaussian needs a finite std > 0: std = {std}")
    own = own_update(peers)
    return std * torch.randn(own.shape, generator=generator, dtype=own.dtype)
