"""Add Gaussian noise to the gradients that go back to the parties.

Paper: Lee et al., "Cooperative Decentralized Backdoor Attacks on Vertical Federated Learning", 2025, Section VI-B and
Table III, with variance 1e-10. The gradients are those of the mean loss, so that a batch of 256 makes each of them 256
times smaller than that of its own loss, and the same variance weighs more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thornbed.defenses.reporting import acted
from thornbed.defenses.vertical import VerticalDefense


@dataclass(frozen=True, kw_only=True)
class GradientNoise(VerticalDefense):
    """Noise of this variance in each number. Reports `noise_share`, the part of the noise in both norms.

    Raises ValueError unless variance is finite and >= 0.
    """

    variance: float = 1e-10

    def __post_init__(self) -> None:
        if not 0 <= self.variance < math.inf:
            raise ValueError(f"gradient_noise needs a finite variance >= 0: variance = {self.variance}")

    def release(self, gradients: Tensor, generator: torch.Generator) -> Tensor:
        """See `VerticalDefense`."""
        drawn = torch.randn(gradients.shape, generator=generator, dtype=gradients.dtype).to(gradients.device)
        noise = math.sqrt(self.variance) * drawn
        loud, norm = float(torch.linalg.vector_norm(noise)), float(torch.linalg.vector_norm(gradients))
        acted(noise_share=loud / (loud + norm) if loud + norm else 0.0)
        return gradients + noise
