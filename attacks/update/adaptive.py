"""Put the strength of the update where the defense lets it through.

Paper: Wang, Dimitriadis, Koyejo, Tople, "Invariant Aggregator for Defending against Federated Backdoor Attacks",
AISTATS 2024, Appendix C.1: the adversary "intentionally scales up the gradient elements in dimensions that are not
masked out such that the gradient norms of the masked malicious gradients remain the same". The mask of a round is made
from updates that an attacker does not see; it takes that of the last step the server made, whose untouched elements
lie open in the model it is sent. Under a rule that masks nothing every element has moved, and the attack sends what it
has.
"""

from __future__ import annotations

import torch
from torch import Tensor

from thornbed.attacks import Knowledge
from thornbed.attacks.update import Sight, own_update

NEEDS = frozenset({Knowledge.OWN_DATA, Knowledge.SERVER_MODEL, Knowledge.EARLIER_MODELS})


def adaptive(peers: Tensor, generator: torch.Generator, sight: Sight) -> Tensor:
    """Return peers[0] (d,) with the elements that moved in the last step enlarged by one factor.

    The factor is |peers[0]| / |its elements that moved|, so that what passes the same mask again has the norm that the
    whole update had (in L2, float64); the other elements are sent as they are. Where nothing is known of a last step,
    or nothing of the update lies where it moved, peers[0] is sent. Nothing is drawn from the generator.
    """
    own = own_update(peers)
    if (step := sight.last_step()) is None:
        return own.clone()
    passed = step != 0
    through = torch.linalg.vector_norm(own[passed], dtype=torch.float64)
    if through == 0:
        return own.clone()
    factor = float(torch.linalg.vector_norm(own, dtype=torch.float64) / through)
    return torch.where(passed, factor * own, own)
