"""All attackers of a round send one and the same update.

Paper: A. Panda, S. Mahloujifar, A. N. Bhagoji, S. Chakraborty, P. Mittal, "SparseFed: Mitigating Model Poisoning
Attacks in Federated Learning with Sparsification", AISTATS 2022; so named in Wang et al., AISTATS 2024, Table 6. Equal
updates agree in every sign and lie at distance zero from each other. To get them the attackers put their data together
once and train on the same share of it with the same randomness, so no attacker has to wait for what another one sends.
Joined with an attack on data (`edge_case + collude`) the shared samples are poisoned by it.
"""

from __future__ import annotations

import torch

from thornbed.attacks import Knowledge
from thornbed.tasks import Samples

NEEDS = frozenset({Knowledge.OWN_DATA, Knowledge.OTHER_ATTACKERS})


def collude(pool: Samples, num_members: int, generator: torch.Generator) -> Samples:
    """Return len(pool) / num_members samples of the pool (rounded, at least one), drawn without replacement.

    So the group's update rests on as many samples as an honest one of the same size; the generator is that of the
    round, and another share is drawn in each. Raises ValueError without samples or members.
    """
    if num_members < 1 or len(pool) < 1:
        raise ValueError(f"collude needs members with samples: members = {num_members}, samples = {len(pool)}")
    share = max(1, round(len(pool) / num_members))
    return pool.select(torch.randperm(len(pool), generator=generator)[:share])
