"""Attacks on the update, one a file: `NAME(peers (k, d), generator, *, options) -> (d,)`.

`peers[0]` is the attacker's own honest update, w_client - w_global, float32; further rows are what its accomplices
share. Inputs are never modified; randomness comes from the generator alone.
"""

from __future__ import annotations

from torch import Tensor


def own_update(peers: Tensor) -> Tensor:
    """Return the attacker's own honest update (d,), the first of `peers` (k, d).

    Raises ValueError for other shapes: the first entry of a lone vector (d,) would pass for an update unseen.
    """
    if peers.ndim != 2 or len(peers) == 0:
        raise ValueError(
            f"an attack on the update needs peers of shape (k, d) with k >= 1: shape = {tuple(peers.shape)}"
        )
    return peers[0]
