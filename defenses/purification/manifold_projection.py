"""Send the embeddings once through the autoencoder, which a large corruption drags along.

Paper: D. Meng and H. Chen, "MagNet: A Two-Pronged Defense against Adversarial Examples", CCS 2017, the reformer; the
baseline "Manifold Projection" of Liu, Xie, Koyejo, Li, "CoPur", NeurIPS 2022, whose Section 4 says why it cannot work:
on a linear manifold with projection P a corruption e leaves the error P e.
"""

from __future__ import annotations

from torch import Tensor

from thornbed.defenses.purification import Manifold, Purified, purified, received

ON_MANIFOLD = True


def manifold_projection(embeddings: Tensor, observed: Tensor, manifold: Manifold) -> Purified:
    """Return AE(h) of the embeddings h (n, M, d), with the manifold's mean in place of missing blocks.

    It has no bound on what a corrupted agent does. Raises ValueError as `defenses.purification.received` does.
    """
    filled, usable = received("manifold_projection", embeddings, observed, manifold)
    return purified(embeddings, observed, usable, manifold(filled))
