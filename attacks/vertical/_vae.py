"""A variational autoencoder of an adversary's features, and its loss.

Papers: D. P. Kingma and M. Welling, "Auto-Encoding Variational Bayes", ICLR 2014; Lee et al., "Cooperative
Decentralized Backdoor Attacks on Vertical Federated Learning", 2025, Section III-A, Equation 2, and Section VI-A for
the layers: fully connected ones, or four convolutions and as many back. Their widths are not given; these are ours.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from thornbed.tasks.bottoms.patch_encoder import channels_of, patch_encoder, sides

Layers = Literal["linear", "convolutions"]


class Vae(nn.Module):
    """Features (n, *shape) to mu and log variance (n, latent), and latent vectors back to features.

    `layers`: "linear" ones with `hidden` units, or "convolutions" with `hidden` features behind them, for shapes
    (C, h, w). `bounded`: features lie in [0, 1], and so does what is decoded. Weights start from torch's current
    generator.
    """

    def __init__(self, shape: tuple[int, ...], latent: int, *, layers: Layers, hidden: int, bounded: bool) -> None:
        super().__init__()
        if layers not in get_args(Layers):
            raise ValueError(f"an autoencoder has layers out of {', '.join(get_args(Layers))}: layers = {layers}")
        if latent < 1 or hidden < 1:
            raise ValueError(f"an autoencoder needs latent and hidden >= 1: latent = {latent}, hidden = {hidden}")
        if layers == "convolutions" and len(shape) != 3:
            raise ValueError(f"convolutions take features of shape (C, h, w): they have {shape}")
        features = math.prod(shape)
        self.latent = latent
        self.encoder: nn.Module
        self.decoder: nn.Module
        if layers == "linear":
            self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(features, hidden), nn.ReLU())
            self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, features))
        else:
            self.encoder = nn.Sequential(patch_encoder(shape, hidden), nn.ReLU())
            self.decoder = _upwards(shape, latent)
        self.decoder.append(nn.Unflatten(1, shape) if layers == "linear" else nn.Identity())
        self.squashed = nn.Sigmoid() if bounded else nn.Identity()
        self.mu, self.log_variance = nn.Linear(hidden, latent), nn.Linear(hidden, latent)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mu and the logarithm of the variance, (n, latent) each."""
        hidden = self.encoder(x)
        return self.mu(hidden), self.log_variance(hidden)

    def decode(self, z: Tensor) -> Tensor:
        """Return features (n, *shape)."""
        decoded: Tensor = self.squashed(self.decoder(z))
        return decoded

    def loss(self, x: Tensor, mu: Tensor, log_variance: Tensor, weight: float, generator: torch.Generator) -> Tensor:
        """Return Equation 2, (n,): weight * |x - x'|^2 + (1 - weight) * KL(N(mu, variance) || N(0, I))."""
        noise = torch.randn(mu.shape, generator=generator).to(mu)
        decoded = self.decode(mu + noise * (log_variance / 2).exp())
        rebuilt = (decoded - x).flatten(1).square().sum(dim=1)
        return weight * rebuilt + (1 - weight) * divergence(mu, log_variance)


def divergence(mu: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(mu, variance) || N(0, I)) of each row, (n,)."""
    return (mu.square() + log_variance.exp() - log_variance - 1).sum(dim=1) / 2


def _upwards(shape: tuple[int, ...], latent: int, width: int = 16) -> nn.Sequential:
    """Return the way back from (n, latent): to each side that the encoder had, and a convolution."""
    steps, channels = sides(shape), channels_of(width)
    (height, columns), behind = steps[-1], channels[-1]
    layers: list[nn.Module] = [nn.Linear(latent, behind * height * columns), nn.Unflatten(1, (behind, height, columns))]
    for before, out in zip(reversed(steps[:-1]), (*reversed(channels[:-1]), shape[0])):
        layers += [nn.ReLU(), nn.Upsample(size=before), nn.Conv2d(behind, out, 3, padding=1)]
        behind = out
    return nn.Sequential(*layers)
