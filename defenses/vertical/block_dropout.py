"""Leave blocks out at random while the top model learns, so that it relies on no party alone.

Source: the dropout of N. Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR
2014, of whole blocks: a trigger that lies in few of them is then absent from a part of the samples that carry it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from thornbed.defenses.reporting import acted
from thornbed.defenses.vertical import VerticalDefense


@dataclass(frozen=True, kw_only=True)
class BlockDropout(VerticalDefense):
    """In training each block of each sample is left out with probability `share`, and the others grow by 1/(1 - share).

    A sample that would lose all of them keeps one. Reports `dropped_share`. Raises ValueError
    unless 0 <= share < 1.
    """

    share: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ValueError(f"block_dropout needs 0 <= share < 1: share = {self.share}")

    def admit(
        self, embeddings: Tensor, used: Tensor, generator: torch.Generator, *, training: bool
    ) -> tuple[Tensor, Tensor]:
        """See `VerticalDefense`."""
        if not training:
            return embeddings, used
        drawn = torch.rand(used.shape, generator=generator).to(used.device)
        strongest = torch.where(used, drawn, -1.0).argmax(dim=1, keepdim=True)
        keeps = (drawn >= self.share).scatter(1, strongest, True) & used
        acted(dropped_share=float((used & ~keeps).double().sum()) / max(1, int(used.sum())))
        return embeddings / (1 - self.share), keeps
