"""Send an honest update, but for the few elements in which the attack is strongest.

Paper: Wang, Dimitriadis, Koyejo, Tople, "Invariant Aggregator for Defending against Federated Backdoor Attacks",
AISTATS 2024, Appendix D.2: all elements of a malicious gradient that are not among its 1,000 largest are set to those
of a benign one. The benign update is the attacker's own: what honest training on its clean data gives from the same
model. "Mimic" of Karimireddy, He, Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR
2022, is another attack: all attackers copy one honest client whole.
"""

from __future__ import annotations

import torch
from torch import Tensor

from thornbed.attacks import Knowledge
from thornbed.attacks.update import Sight, own_update

NEEDS = frozenset({Knowledge.OWN_DATA, Knowledge.SERVER_MODEL})


def mimic(peers: Tensor, generator: torch.Generator, sight: Sight, *, num_kept: int = 1000) -> Tensor:
    """Return the benign update (d,) with the `num_kept` elements of peers[0] that are largest in magnitude.

    Where d is not above num_kept nothing is copied and peers[0] is sent. Ties go to the lower index. Nothing is drawn
    from the generator. Raises ValueError for num_kept < 0.
    """
    if num_kept < 0:
        raise ValueError(f"mimic needs num_kept >= 0: num_kept = {num_kept}")
    own = own_update(peers)
    sent = sight.benign().clone()
    largest = torch.sort(own.abs(), descending=True, stable=True).indices[:num_kept]
    sent[largest] = own[largest]
    return sent
