"""The server's side of a step: from the embeddings of those that answered to the loss, and the gradient of each block.

Paper: Lee et al., 2025, Section II-A, Algorithm 2, line 11. With local_steps Q > 1 the top model takes Q steps on the
same embeddings, as in FedBCD (Y. Liu et al., IEEE TSP 2022); what goes back is the gradient before the first of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thornbed.tasks.split import MakeOptimizer
from thornbed.tasks.split.kept_state import kept, restore


class Guard(Protocol):
    """What a server does against its parties; every file of `defenses.vertical` has one, and this is what it is."""

    def admit(
        self, embeddings: Tensor, used: Tensor, generator: torch.Generator, *, training: bool
    ) -> tuple[Tensor, Tensor]:
        """Return what the top model is given, of embeddings (b, K, d) and which blocks (b, K) bool may be used.

        Differentiable in the embeddings; blocks that are not used are 0 to the top model, whatever they hold.
        """

    def release(self, gradients: Tensor, generator: torch.Generator) -> Tensor:
        """Return what goes back for the gradients (b, K, d) of the embeddings as they came in."""


@dataclass(frozen=True, eq=False)
class TopStep:
    """What came of a step.

    Attributes
    ----------
    loss : mean cross-entropy of the batch, before the step.
    correct : how many of it were predicted rightly, before the step.
    gradients : (b, K, d) of the mean loss in the embeddings as they were sent, after the guard; 0 for absent parties.
    rejected : blocks of present parties that were not finite, and so not used.
    """

    loss: float
    correct: int
    gradients: Tensor
    rejected: int


def usable(embeddings: Tensor, present: Tensor) -> Tensor:
    """Return which blocks (b, K) bool of embeddings (b, K, d) can be used: finite ones, of parties present (K,) bool.

    Raises ValueError for shapes that do not fit, and where nobody is present.
    """
    if embeddings.ndim != 3 or present.shape != embeddings.shape[1:2] or present.dtype != torch.bool:
        raise ValueError(
            "the top model needs embeddings (b, K, d) and one bool a party: "
            f"{tuple(embeddings.shape)}, present is {present.dtype} {tuple(present.shape)}"
        )
    if not bool(present.any()):
        raise ValueError(f"the top model needs at least one party: K = {len(present)}, present = 0")
    return embeddings.detach().abs().amax(dim=2).isfinite() & present


def masked(embeddings: Tensor, used: Tensor) -> Tensor:
    """Return the embeddings (b, K, d) with 0 in blocks that are not used (b, K): themselves where all are."""
    return embeddings if bool(used.all()) else torch.where(used[:, :, None], embeddings, 0.0)


class TopWork:
    """The top model, its optimiser, and the guard in front of it."""

    def __init__(
        self, top: nn.Module, optimizer: MakeOptimizer, *, local_steps: int = 1, guard: Guard | None = None
    ) -> None:
        if local_steps < 1:
            raise ValueError(f"a top model needs local_steps >= 1: local_steps = {local_steps}")
        self.top = top
        self.optimizer = optimizer(top.parameters())
        self.local_steps = local_steps
        self.guard = guard

    def step(self, embeddings: Tensor, present: Tensor, y: Tensor, generator: torch.Generator) -> TopStep:
        """Learn from embeddings (b, K, d) with labels (b,) int64; the generator is the guard's.

        Raises ValueError as `usable` does, and for another number of labels.
        """
        sent = embeddings.detach().requires_grad_()
        used = usable(sent, present)
        if len(y) != len(sent):
            raise ValueError(f"the top model needs one label a sample: {len(sent)} samples, {len(y)} labels")
        inputs = self._admitted(sent, used, generator, training=True)
        gradients, first, correct = torch.zeros_like(sent), 0.0, 0
        for local in range(self.local_steps):
            self.top.zero_grad(set_to_none=True)
            logits = self.top(inputs if local == 0 else inputs.detach())
            loss = F.cross_entropy(logits, y)
            loss.backward()
            if local == 0:
                first, correct = float(loss.detach()), int((logits.argmax(dim=1) == y).sum())
                # Of a block that came in as NaN it is a number all the same: 0, since nothing of it was used.
                gradients = masked(sent.grad, used) if sent.grad is not None else gradients
            self.optimizer.step()
        if self.guard is not None:
            gradients = self.guard.release(gradients, generator)
        gradients = gradients * present[:, None]
        return TopStep(first, correct, gradients, int((present & ~used).sum()))

    def predict(self, embeddings: Tensor, present: Tensor, generator: torch.Generator) -> Tensor:
        """Return logits (n, C) of embeddings (n, K, d) without learning."""
        with torch.no_grad():
            inputs = self._admitted(embeddings, usable(embeddings, present), generator, training=False)
            logits: Tensor = self.top(inputs)
            return logits

    def gradients(
        self, versions: Iterable[Tensor], present: Tensor, y: Tensor, generator: torch.Generator
    ) -> list[Tensor]:
        """Return the gradient that a step would take, flat (p,), for each version (b, K, d) of a batch, without a step.

        The guard meets all of them with the same randomness, so that what differs is due to the embeddings.
        """
        found, state = [], generator.get_state()
        for embeddings in versions:
            generator.set_state(state)
            inputs = self._admitted(embeddings, usable(embeddings, present), generator, training=True)
            loss = F.cross_entropy(self.top(inputs), y)
            parts = torch.autograd.grad(loss, tuple(self.top.parameters()))
            found.append(torch.cat([part.flatten() for part in parts]))
        return found

    def state(self) -> dict[str, Tensor]:
        """Return all of it as plain tensors by name."""
        return kept(self.top, self.optimizer)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state`; raises ValueError where it is one of another network."""
        restore(self.top, self.optimizer, state)

    def _admitted(self, embeddings: Tensor, used: Tensor, generator: torch.Generator, *, training: bool) -> Tensor:
        if self.guard is not None:
            own = masked(embeddings, used).clone()  # so that no guard meets a NaN, and may write into it
            embeddings, used = self.guard.admit(own, used, generator, training=training)
        return masked(embeddings, used)
