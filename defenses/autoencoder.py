"""The manifold of what agents send when nobody attacks, as an autoencoder of their embeddings.

Paper: Liu, Xie, Koyejo, Li, "CoPur: Certifiably Robust Collaborative Inference via Feature Purification", NeurIPS 2022,
Sections 2.1 and 3 (Remark 2: a linear last layer). It lies here, beside the defenses that use it, and not among the
models of tasks: those turn samples into logits, and this turns embeddings into embeddings, is fitted by the fusion
centre, and is a part of its defense.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from thornbed.defenses.layers import leaky_layers


class Autoencoder(nn.Module):
    """Embeddings (n, M, d) of M agents to `bottleneck` numbers and back, with leaky ReLU between hidden layers.

    Inside, each agent's embeddings are centred by `mean` (M, d) and divided by `scale` (M,), so that no agent counts
    more for being loud; both are buffers, of the clean training rows. The last layer is linear, and without `hidden`
    layers the decoder is affine. The decoder has the hidden layers of the encoder in reverse order. Initial weights
    come from the generator.

    Raises ValueError for widths below 1, scales that are not finite and above 0, and shapes that do not fit.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        mean: Tensor,
        scale: Tensor,
        bottleneck: int,
        generator: torch.Generator,
        *,
        hidden: tuple[int, ...] = (),
        slope: float = 0.2,
    ) -> None:
        super().__init__()
        if mean.ndim != 2 or scale.shape != mean.shape[:1]:
            raise ValueError(
                "an autoencoder needs a mean (M, d) and a scale (M,) of M agents: "
                f"mean is {tuple(mean.shape)}, scale {tuple(scale.shape)}"
            )
        if not bool((scale.isfinite() & (scale > 0)).all()):
            raise ValueError(f"an autoencoder needs finite scales > 0: the smallest is {float(scale.min())}")
        if min((bottleneck, *hidden)) < 1:
            raise ValueError(f"an autoencoder needs widths >= 1: bottleneck = {bottleneck}, hidden = {hidden}")
        self.register_buffer("mean", mean.detach().clone())
        self.register_buffer("scale", scale.detach().clone())
        widths = (mean.numel(), *hidden, bottleneck)
        self.encoder = leaky_layers(widths, slope, generator, mean.dtype)
        self.decoder = leaky_layers(widths[::-1], slope, generator, mean.dtype)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return what is kept of embeddings (n, M, d), in the same shape and units."""
        return self.decode(self.encode(embeddings))

    def encode(self, embeddings: Tensor) -> Tensor:
        """Return the codes (n, bottleneck)."""
        code: Tensor = self.encoder(((embeddings - self.mean) / self.scale[:, None]).flatten(1))
        return code

    def decode(self, codes: Tensor) -> Tensor:
        """Return the embeddings (n, M, d) of codes (n, bottleneck): points of the manifold."""
        decoded: Tensor = self.decoder(codes)
        return decoded.view(-1, *self.mean.shape) * self.scale[:, None] + self.mean

    def last_layer(self) -> tuple[Tensor, Tensor]:
        """Return W_end (M, d, k) of Remark 2 and its offset (M, d), in the units of the embeddings.

        Differences of points of the manifold lie in the range of W_end; k is the width of the last hidden layer, or
        the bottleneck where there is none, and then the manifold is that whole affine range.
        """
        last = self.output
        weight = last.weight.detach().view(*self.mean.shape, -1) * self.scale[:, None, None]
        return weight, last.bias.detach().view(self.mean.shape) * self.scale[:, None] + self.mean

    @property
    def output(self) -> nn.Linear:
        """The last layer of the decoder."""
        return cast(nn.Linear, self.decoder[-1])

    @property
    def is_affine(self) -> bool:
        """Tell whether the decoder is one linear layer."""
        return len(self.decoder) == 1


def explained_variance(autoencoder: nn.Module, embeddings: Tensor, mean: Tensor) -> tuple[float, list[float]]:
    """Return the share of the squared distance from `mean` (M, d) that is kept of embeddings (n, M, d), and by agent.

    1 - sum |h - AE(h)|^2 / sum |h - mean|^2: 1 is everything, 0 is no better than the mean, below is worse. An agent
    that always sends the mean has 1 where that comes back exactly, and minus infinity where not.
    """
    with torch.no_grad():
        left = (embeddings - autoencoder(embeddings)).square().sum(dim=(0, 2), dtype=torch.float64)
        whole = (embeddings - mean).square().sum(dim=(0, 2), dtype=torch.float64)
    shares = torch.where(left == 0, torch.ones_like(left), 1 - left / whole)
    return float(1 - left.sum() / whole.sum()) if float(left.sum()) else 1.0, shares.tolist()
