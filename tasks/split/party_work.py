"""A party's side of a step: learn from the gradient of the last embedding, and embed what is asked for next.

Paper: Lee et al., 2025, Section II-A, Algorithm 2, lines 9 and 13. With local_steps Q > 1: Y. Liu et al., "FedBCD: A
Communication-Efficient Collaborative Learning Framework for Distributed Features", IEEE TSP 2022, Algorithm 1, Q local
updates on one batch with the other blocks held stale. There a party knows the slope of the loss at its own new
embedding; a party of SplitNN does not have the top model, so the slope that it was sent stays as it was too.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from thornbed.tasks.split import MakeOptimizer
from thornbed.tasks.split.kept_state import kept, restore

PENDING = "pending"


class PartyWork:
    """A bottom model, its optimiser, and the input whose gradient is still to come.

    As long as the object lives, an embedding keeps its graph; restored from `state`, it is computed again from the same
    input and weights, which gives the same gradient for bottom models without randomness.
    """

    def __init__(self, bottom: nn.Module, optimizer: MakeOptimizer, *, local_steps: int = 1) -> None:
        if local_steps < 1:
            raise ValueError(f"a party needs local_steps >= 1: local_steps = {local_steps}")
        self.bottom = bottom
        self.optimizer = optimizer(bottom.parameters())
        self.local_steps = local_steps
        self._pending: Tensor | None = None
        self._embedding: Tensor | None = None

    def step(self, gradient: Tensor | None, x: Tensor | None) -> Tensor | None:
        """Learn from the gradient (b, d) of the last embedding, then return that of x, (n, d), detached.

        gradient None: the last embedding was not used, because there is none or it came too late; it is forgotten.
        x None: there is nothing more to embed, and None is returned. The gradient is that of the mean loss of a batch,
        so it is summed over the batch. Raises ValueError for a gradient without an embedding, or of another shape.
        """
        if gradient is not None:
            self._learn(gradient)
        self._pending, self._embedding = x, None
        if x is None:
            return None
        self._embedding = self.bottom(x)
        return self._embedding.detach()

    def embed(self, x: Tensor, *, batch_size: int = 4096) -> Tensor:
        """Return embeddings (n, d) without learning, in batches; what is pending stays."""
        with torch.no_grad():
            return torch.cat([self.bottom(part) for part in x.split(batch_size)])

    def state(self) -> dict[str, Tensor]:
        """Return all of it as plain tensors by name."""
        found = kept(self.bottom, self.optimizer)
        if self._pending is not None:
            found[PENDING] = self._pending.clone()
        return found

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state`; raises ValueError where it is one of another network."""
        restore(self.bottom, self.optimizer, state)
        self._pending, self._embedding = state.get(PENDING), None

    def _learn(self, gradient: Tensor) -> None:
        if self._pending is None:
            raise ValueError("a gradient came, and no embedding is waiting for one")
        for _ in range(self.local_steps):
            embedding = self.bottom(self._pending) if self._embedding is None else self._embedding
            if gradient.shape != embedding.shape:
                raise ValueError(
                    f"the gradient of an embedding {tuple(embedding.shape)} has its shape: {tuple(gradient.shape)}"
                )
            self.bottom.zero_grad(set_to_none=True)  # in a third of the time of the optimiser's
            embedding.backward(gradient)
            self.optimizer.step()
            self._embedding = None
