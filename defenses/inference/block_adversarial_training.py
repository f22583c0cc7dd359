"""Train on what an attacker would make of each row, if it had one agent.

Paper: the baseline "Block-wise Adversarial Training" of Liu, Xie, Koyejo, Li, "CoPur: Certifiably Robust Collaborative
Inference via Feature Purification", NeurIPS 2022, Section 5.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from thornbed.defenses.inference.adversarial_training import AdversarialTraining


@dataclass(frozen=True, kw_only=True)
class BlockAdversarialTraining(AdversarialTraining):
    """As `adversarial_training`, with the same options, but of each row one block moves, drawn anew every time."""

    def _blocks(self, x: Tensor, generator: torch.Generator) -> Tensor:
        one = torch.randint(x.shape[1], (len(x),), generator=generator)
        return torch.nn.functional.one_hot(one, x.shape[1]).to(torch.bool).to(x.device)
