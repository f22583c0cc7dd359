"""Move what is sent up the gradient of the loss of the true class, without any bound on how far.

Paper: A. Madry, A. Makelov, L. Schmidt, D. Tsipras, A. Vladu, "Towards Deep Learning Models Resistant to Adversarial
Attacks", ICLR 2018; without its projection in Liu, Xie, Koyejo, Li, "CoPur", NeurIPS 2022, Section 5.1. It attacks the
undefended model and knows nothing of the defense.
"""

from __future__ import annotations

from collections.abc import Sequence

from thornbed.attacks import Knowledge
from thornbed.attacks.inference import QuerySight, SentEmbeddings
from thornbed.attacks.inference._pgd import away, pgd

NEEDS = frozenset({Knowledge.OWN_DATA, Knowledge.FUSION_MODEL, Knowledge.OTHER_EMBEDDINGS, Knowledge.TRUE_LABELS})


def untargeted_pgd(
    sent: SentEmbeddings, agents: Sequence[int], sight: QuerySight, *, steps: int = 30, step_size: float = 0.5
) -> SentEmbeddings:
    """Return what is sent after `steps` of h_adv + step_size * gradient of the cross-entropy with the true label.

    Raises ValueError for options out of range, where `sight` has no labels or no network, and as
    `attacks.inference.corrupted` does.
    """
    return pgd("untargeted_pgd", sent, agents, sight, away, steps=steps, step_size=step_size)
