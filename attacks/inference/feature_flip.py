"""Send the embedding with its sign flipped and its size amplified, knowing nothing else.

Paper: Liu, Xie, Koyejo, Li, "CoPur: Certifiably Robust Collaborative Inference via Feature Purification", NeurIPS 2022,
Section 5.1, the distributed feature-flipping attack: h_i = -amplification * l_i.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from thornbed.attacks import Knowledge
from thornbed.attacks.inference import QuerySight, SentEmbeddings, corrupted

NEEDS = frozenset({Knowledge.OWN_DATA})


def feature_flip(
    sent: SentEmbeddings, agents: Sequence[int], sight: QuerySight, *, amplification: float = 10.0
) -> SentEmbeddings:
    """Return what is sent with -amplification * l_i from each of the agents; `sight` is not used.

    Raises ValueError unless amplification is finite and above 0, and as `attacks.inference.corrupted` does.
    """
    mask = corrupted("feature_flip", sent, agents)
    if not 0 < amplification < math.inf:
        raise ValueError(f"feature_flip needs a finite amplification > 0: amplification = {amplification}")
    flipped = torch.where(mask[:, None], -amplification * sent.embeddings, sent.embeddings)
    return replace(sent, embeddings=flipped)
