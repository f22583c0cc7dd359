"""Stochastic gradient descent, with momentum where asked for.

Paper: B. T. Polyak, "Some methods of speeding up the convergence of iteration methods", USSR Computational Mathematics
and Mathematical Physics, 1964 (momentum); I. Sutskever, J. Martens, G. Dahl, G. Hinton, "On the importance of
initialization and momentum in deep learning", ICML 2013 (Nesterov's form). Momentum starts from zero in every round:
a client keeps no state between rounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch.nn import Parameter


def sgd(
    parameters: Iterable[Parameter],
    learning_rate: float,
    *,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> torch.optim.Optimizer:
    """Return the optimiser; `weight_decay` adds that multiple of a parameter to its gradient.

    Raises ValueError unless learning_rate is finite and > 0, 0 <= momentum < 1, weight_decay finite and >= 0, and
    momentum > 0 with nesterov.
    """
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"sgd needs a finite learning rate > 0: learning_rate = {learning_rate}")
    if not 0 <= momentum < 1:
        raise ValueError(f"sgd needs 0 <= momentum < 1: momentum = {momentum}")
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"sgd needs a finite weight_decay >= 0: weight_decay = {weight_decay}")
    if nesterov and momentum == 0:
        raise ValueError(f"sgd needs momentum > 0 with nesterov: momentum = {momentum}, nesterov = {nesterov}")
    return torch.optim.SGD(
        parameters, lr=learning_rate, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov
    )
