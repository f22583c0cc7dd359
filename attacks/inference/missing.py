"""Send nothing.

Paper: Liu, Xie, Koyejo, Li, "CoPur: Certifiably Robust Collaborative Inference via Feature Purification", NeurIPS 2022,
Section 2.2, threat model B. The paper lets the attacker choose which agents fall silent; here they are given, and who
wants the worst ones tries them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from thornbed.attacks import Knowledge
from thornbed.attacks.inference import QuerySight, SentEmbeddings, corrupted

NEEDS: frozenset[Knowledge] = frozenset()


def missing(sent: SentEmbeddings, agents: Sequence[int], sight: QuerySight) -> SentEmbeddings:
    """Return what is sent without the agents, whose embeddings become NaN; `sight` is not used.

    Raises ValueError as `attacks.inference.corrupted` does. That all agents are silent is for the defense to refuse.
    """
    mask = corrupted("missing", sent, agents)
    return SentEmbeddings(
        embeddings=torch.where(mask[:, None], torch.nan, sent.embeddings),
        observed=sent.observed & ~mask.to(sent.observed.device),
    )
