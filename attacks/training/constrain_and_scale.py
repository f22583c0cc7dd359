"""Train close to the server's model while planting the backdoor, then enlarge the update to replace the model.

Paper: E. Bagdasaryan, A. Veit, Y. Hua, D. Estrin, V. Shmatikov, "How To Backdoor Federated Learning", AISTATS 2020,
Equation 4 (L = alpha * L_class + (1 - alpha) * L_ano) and Algorithm 1. L_ano is whatever a detector would look at;
here it is the L2 distance from the server's model. Their Algorithm 1 also lowers the attacker's learning rate and stops
early; both are settings of the local training, which this leaves alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thornbed.attacks import Knowledge
from thornbed.attacks.update import own_update

NEEDS = frozenset({Knowledge.OWN_DATA, Knowledge.SERVER_MODEL})


@dataclass(frozen=True, kw_only=True)
class ConstrainAndScale:
    """Minimise alpha * cross-entropy + (1 - alpha) * distance, then send `factor` times the update.

    alpha in (0, 1]: 1 trains as usual. With `bound` the factor is bound / |update| instead (their train-and-scale): the
    update is sent with exactly that L2 norm, which a server that clips at it lets through.
    """

    alpha: float = 0.9
    factor: float = 5.0
    bound: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1:
            raise ValueError(f"constrain_and_scale needs 0 < alpha <= 1: alpha = {self.alpha}")
        if not 0 < self.factor < math.inf:
            raise ValueError(f"constrain_and_scale needs a finite factor > 0: factor = {self.factor}")
        if self.bound is not None and not 0 < self.bound < math.inf:
            raise ValueError(f"constrain_and_scale needs a finite bound > 0: bound = {self.bound}")

    def objective(self, cross_entropy: Tensor, distance: Tensor) -> Tensor:
        """Return Equation 4 with L_ano = distance."""
        return self.alpha * cross_entropy + (1 - self.alpha) * distance

    def outgoing(self, peers: Tensor, generator: torch.Generator) -> Tensor:
        """Return peers[0] (d,) times the factor, or with norm `bound`; an update of zeros stays one."""
        own = own_update(peers)
        if self.bound is None:
            return self.factor * own
        norm = float(torch.linalg.vector_norm(own, dtype=torch.float64))
        return own * (self.bound / norm) if norm else own.clone()
