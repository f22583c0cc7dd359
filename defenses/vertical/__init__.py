"""What the server of vertical learning does against its parties, one way a file: a frozen dataclass of options.

The class has the name of its file without underscores (`GradientNoise` in gradient_noise.py) and is a
`VerticalDefense`: it changes what the top model is given, or what goes back, and leaves the other as it is. The server
knows what it is sent and what it sends, and not who attacks. Inputs are never modified; randomness comes from the
generator alone.

>>> import torch
>>> from thornbed.defenses.vertical.embedding_clipping import EmbeddingClipping
>>> sent, used = torch.tensor([[[3.0, 4.0], [0.0, 1.0]]]), torch.ones(1, 2, dtype=torch.bool)
>>> EmbeddingClipping(max_norm=1.0).admit(sent, used, torch.Generator(), training=True)[0].norm(dim=2).tolist()
[[1.0, 1.0]]
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thornbed.defenses.reporting import acted


class VerticalDefense:
    """What every defense of this folder is: two verbs, of which it overrides those it needs."""

    def admit(
        self, embeddings: Tensor, used: Tensor, generator: torch.Generator, *, training: bool
    ) -> tuple[Tensor, Tensor]:
        """Return what the top model is given, of embeddings (b, K, d), finite, and which blocks (b, K) bool are used.

        Differentiable in the embeddings, so that each party's gradient is that of what it sent.
        """
        return embeddings, used

    def release(self, gradients: Tensor, generator: torch.Generator) -> Tensor:
        """Return what goes back to the parties, of the gradients (b, K, d) of the mean loss in what they sent."""
        return gradients


@dataclass(frozen=True)
class InTurn(VerticalDefense):
    """Several defenses: each acts on what the one before has made, also of what goes back."""

    parts: tuple[VerticalDefense, ...]

    def admit(
        self, embeddings: Tensor, used: Tensor, generator: torch.Generator, *, training: bool
    ) -> tuple[Tensor, Tensor]:
        """See `VerticalDefense`; what one leaves out the next does not see."""
        for part in self.parts:
            embeddings, used = part.admit(embeddings, used, generator, training=training)
            embeddings = torch.where(used[:, :, None], embeddings, 0.0)
        return embeddings, used

    def release(self, gradients: Tensor, generator: torch.Generator) -> Tensor:
        """See `VerticalDefense`."""
        for part in self.parts:
            gradients = part.release(gradients, generator)
        return gradients


def clipped(name: str, blocks: Tensor, counted: Tensor, max_norm: float | None) -> Tensor:
    """Return blocks (b, K, d), each shortened to max_norm where it is longer.

    max_norm None: the median norm of the blocks counted (b, K) bool, which fewer than half of the parties cannot move
    beyond the honest ones. Reports `clipped_share`, of the blocks counted. A block's gradient is that of its direction
    where it is shortened.
    """
    norms = torch.linalg.vector_norm(blocks, dim=2)
    if not bool(counted.any()):
        return blocks
    bound = torch.median(norms[counted].detach()) if max_norm is None else norms.new_tensor(max_norm)
    long = norms > bound
    acted(**{f"{name}_share": float(long[counted].double().mean())})
    return torch.where(long[:, :, None], blocks * (bound / torch.where(long, norms, 1.0))[:, :, None], blocks)


def check_above_zero(defense: str, option: str, value: float | None) -> None:
    """Raise ValueError unless the option is None, or finite and above 0."""
    if value is not None and not 0 < value < math.inf:
        raise ValueError(f"{defense} needs a finite {option} > 0: {option} = {value}")
