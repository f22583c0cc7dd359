"""Take the embeddings as they come: no defense.

Source: the baseline "Unsecured" of Liu, Xie, Koyejo, Li, "CoPur", NeurIPS 2022, Section 5.1.
"""

from __future__ import annotations

from torch import Tensor

from thornbed.defenses.purification import Manifold, Purified, purified, received

ON_MANIFOLD = False


def unsecured(embeddings: Tensor, observed: Tensor, manifold: Manifold) -> Purified:
    """Return the embeddings (n, M, d) with the manifold's mean in place of missing blocks, and of those not finite.

    The authors put 0 there. Raises ValueError as `defenses.purification.received` does.
    """
    filled, usable = received("unsecured", embeddings, observed, manifold)
    return purified(embeddings, observed, usable, filled)
