"""Shorten the embeddings that the top model is given, so that no block outweighs the others by its size.

Source: the norm bound on updates of Z. Sun et al., "Can You Really Backdoor Federated Learning?", 2019, applied to
embeddings: a trigger whose intensity is many times that of a pixel makes long ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from thornbed.defenses.vertical import VerticalDefense, check_above_zero, clipped


@dataclass(frozen=True, kw_only=True)
class EmbeddingClipping(VerticalDefense):
    """Each sample's embedding of each party is at most max_norm long; None: the median length in the batch.

    It does so in training and in prediction. With None, predictions of a batch depend on one another a little. Reports
    `clipped_embeddings_share`. Raises ValueError unless max_norm is None, or finite and > 0.
    """

    max_norm: float | None = None

    def __post_init__(self) -> None:
        check_above_zero("embedding_clipping", "max_norm", self.max_norm)

    def admit(
        self, embeddings: Tensor, used: Tensor, generator: torch.Generator, *, training: bool
    ) -> tuple[Tensor, Tensor]:
        """See `VerticalDefense`."""
        return clipped("clipped_embeddings", embeddings, used, self.max_norm), used
