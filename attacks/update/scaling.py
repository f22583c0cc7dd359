"""Enlarge the update, so that it survives the average with those of the honest clients.

Paper: E. Bagdasaryan, A. Veit, Y. Hua, D. Estrin, V. Shmatikov, "How To Backdoor Federated Learning", AISTATS 2020,
Equation 3 (model replacement). With n participants and a global learning rate eta they send (n / eta) * (X - G) to
put their model X in the place of the global model G. In this testbed the server adds the weighted mean of the updates,
so the factor that replaces the model is 1 / (the attacker's weight): the number of clients of the round where all are
of one size, and that number over m where m attackers send nearly the same. It holds near convergence, where the
honest updates all but cancel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from thornbed.attacks import Knowledge
from thornbed.attacks.update import own_update

NEEDS = frozenset({Knowledge.OWN_DATA, Knowledge.SERVER_MODEL})


def scaling(peers: Tensor, generator: torch.Generator, *, factor: float = 10.0) -> Tensor:
    """Return factor * peers[0], (d,); nothing is drawn from the generator.

    Alone it makes an honest client loud; it is meant to follow an attack on the data. Raises ValueError unless factor
    is finite and > 0.
    """
    if not 0 < factor < math.inf:
        raise ValueError(f"scaling needs a finite factor > 0: factor = {factor}")
    return factor * own_update(peers)
