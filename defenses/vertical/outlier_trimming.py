"""Leave out blocks that lie far from the other embeddings of the same party.

Source: the usual robust rule by median distances (P. Rousseeuw and C. Croux, "Alternatives to the Median Absolute
Deviation", JASA 1993), applied block by block to the embeddings of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from thornbed.defenses.reporting import acted
from thornbed.defenses.vertical import VerticalDefense, check_above_zero

# Equal samples of a batch come out of a network as equal as float32 has it.
ROUNDING = 1e-5


@dataclass(frozen=True, kw_only=True)
class OutlierTrimming(VerticalDefense):
    """A block is left out where it is `factor` times as far from its party's median as that party's median distance.

    The median is that of each number over the batch; its distance is that of the blocks away from it, since most
    images are blank at an edge, and what differs from a blank is no outlier yet. It does so in training and in
    prediction, where it looks at the queries that came together: where most of them carry a trigger, the trigger is
    what is usual. Reports `trimmed_share`. Raises ValueError unless factor is finite and > 0.
    """

    factor: float = 4.0

    def __post_init__(self) -> None:
        check_above_zero("outlier_trimming", "factor", self.factor)

    def admit(
        self, embeddings: Tensor, used: Tensor, generator: torch.Generator, *, training: bool
    ) -> tuple[Tensor, Tensor]:
        """See `VerticalDefense`."""
        seen = torch.where(used[:, :, None], embeddings.detach(), torch.nan)
        usual = seen.nanmedian(dim=0).values
        distances = torch.linalg.vector_norm(seen - usual, dim=2)
        away = distances > ROUNDING * torch.linalg.vector_norm(usual, dim=1)
        scale = torch.where(away, distances, torch.nan).nanmedian(dim=0).values
        near = ~away | (distances <= self.factor * scale)
        acted(trimmed_share=float((used & ~near).double().sum()) / max(1, int(used.sum())))
        return embeddings, used & near
