"""Send only the entries of the update that are largest in size: gradient compression, as a defense against inversion.

Paper: L. Zhu, Z. Liu, S. Han, "Deep Leakage from Gradients", NeurIPS 2019, Section 5.2, where pruning the small entries
stops the attack from a sparsity of about 20% on; the compression is that of Y. Lin, S. Han, H. Mao, Y. Wang, B. Dally,
"Deep Gradient Compression", ICLR 2018, without its error feedback, since a client keeps nothing between rounds here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from thornbed.defenses.reporting import acted


def top_k(update: Tensor, generator: torch.Generator, *, share: float = 0.1) -> Tensor:
    """Return the update (d,) with all but its round(share * d) largest entries, at least one, set to 0.

    Among equal sizes the choice is the library's. Reports `pruned_share`, of the entries that were not 0. Raises
    ValueError unless 0 < share <= 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"top_k needs 0 < share <= 1: share = {share}")
    kept = max(1, round(share * len(update)))
    places = update.abs().topk(kept).indices
    sparse = torch.zeros_like(update)
    sparse[places] = update[places]
    before, after = int(torch.count_nonzero(update)), int(torch.count_nonzero(sparse))
    acted(pruned_share=1 - after / before if before else 0.0)
    return sparse
