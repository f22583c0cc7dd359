"""Shorten the gradients that go back to the parties, block by block.

Source: the clipping of Abadi et al., "Deep Learning with Differential Privacy", CCS 2016, applied to what a server of
SplitNN sends: labels are inferred from the sizes of gradients (O. Li et al., "Label Leakage and Protection in Two-party
Split Learning", ICLR 2022), and backdoors by VILLAIN's comparison of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from thornbed.defenses.vertical import VerticalDefense, check_above_zero, clipped


@dataclass(frozen=True, kw_only=True)
class GradientClipping(VerticalDefense):
    """Each sample's gradient of each block is at most max_norm long; None: the median length in the step.

    Absent blocks have gradients of 0, and do not count. Reports `clipped_gradients_share`. Raises ValueError unless
    max_norm is None, or finite and > 0.
    """

    max_norm: float | None = None

    def __post_init__(self) -> None:
        check_above_zero("gradient_clipping", "max_norm", self.max_norm)

    def release(self, gradients: Tensor, generator: torch.Generator) -> Tensor:
        """See `VerticalDefense`."""
        return clipped("clipped_gradients", gradients, gradients.ne(0).any(dim=2), self.max_norm)
