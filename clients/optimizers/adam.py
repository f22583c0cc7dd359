"""Adam: steps scaled by running means of the gradient and of its square.

Paper: D. P. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, Algorithm 1. The means start from
zero in every round, since a client keeps no state between rounds: with few local steps each has nearly the size of the
learning rate, whatever the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch.nn import Parameter


def adam(
    parameters: Iterable[Parameter],
    learning_rate: float,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """Return the optimiser; `weight_decay` adds that multiple of a parameter to its gradient (it is not AdamW).

    Raises ValueError unless learning_rate is finite and > 0, beta1 and beta2 in [0, 1), weight_decay finite and >= 0.
    """
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"adam needs a finite learning rate > 0: learning_rate = {learning_rate}")
    for name, beta in (("beta1", beta1), ("beta2", beta2)):
        if not 0 <= beta < 1:
            raise ValueError(f"adam needs 0 <= {name} < 1: {name} = {beta}")
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"adam needs a finite weight_decay >= 0: weight_decay = {weight_decay}")
    return torch.optim.Adam(parameters, lr=learning_rate, betas=(beta1, beta2), weight_decay=weight_decay)
