"""Train on what an attacker would make of each row, if it had all agents.

Paper: A. Madry, A. Makelov, L. Schmidt, D. Tsipras, A. Vladu, "Towards Deep Learning Models Resistant to Adversarial
Attacks", ICLR 2018; without projection, and told the target of a targeted attack, in Liu, Xie, Koyejo, Li, "CoPur",
NeurIPS 2022, Section 5.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thornbed.defenses.fusion_head import FittedHead, HeadTraining, fit_head
from thornbed.defenses.inference.plain import Plain


@dataclass(frozen=True, kw_only=True)
class AdversarialTraining(Plain):
    """Train the head on rows moved by `steps` of `step_size` along the gradient of its own loss, newly for each batch.

    Untargeted the loss of the true label grows; with `targeted` that of `target` falls, or where None that of the class
    after the true one, which is the targeted attack that it is then trained for. Prediction is plain. Raises ValueError
    for options out of range.
    """

    steps: int = 10
    step_size: float = 0.5
    targeted: bool = False
    target: int | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"adversarial training needs steps >= 1: steps = {self.steps}")
        if not 0 < self.step_size < math.inf:
            raise ValueError(f"adversarial training needs a finite step_size > 0: step_size = {self.step_size}")
        if self.target is not None and not self.targeted:
            raise ValueError(f"adversarial training needs targeted=True for a target: target = {self.target}")

    def fit(
        self, features: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator, training: HeadTraining
    ) -> FittedHead:
        """Return a head trained on adversarial features in place of the clean ones (N, M, d), labels (N,) kept.

        Raises ValueError for a target that is no class.
        """
        if self.target is not None and not 0 <= self.target < num_classes:
            raise ValueError(
                f"adversarial training needs a target below the {num_classes} classes: target = {self.target}"
            )

        def change(head: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            return self._adversarial(head, x, y, num_classes, self._blocks(x, generator))

        return fit_head(features, labels, num_classes, generator, training, change)

    def _blocks(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return which blocks of a batch (b, M, d) are moved, (b, M) bool."""
        return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)

    def _adversarial(self, head: nn.Module, x: Tensor, y: Tensor, num_classes: int, blocks: Tensor) -> Tensor:
        wanted = y
        if self.targeted:
            wanted = (y + 1) % num_classes if self.target is None else torch.full_like(y, self.target)
        rate = -self.step_size if self.targeted else self.step_size
        for _ in range(self.steps):
            x = x.detach().requires_grad_()
            loss = F.cross_entropy(head(x), wanted, reduction="sum")
            x = x + rate * torch.autograd.grad(loss, x)[0] * blocks[:, :, None]
        return x.detach()
