"""Fit the autoencoder of agents' embeddings to clean training rows, and say how much of them it keeps.

Paper: Liu, Xie, Koyejo, Li, "CoPur", NeurIPS 2022, Section 2.1. The paper asks only that the autoencoder captures the
manifold. What purification needs besides is that the manifold be redundant: what one agent sends must follow from what
others send, or nobody can tell a corrupted block from a rare one. The directions of largest variance are mostly those
that one agent has to itself; `drop` blanks agents at random and asks for all blocks back (Vincent et al., "Extracting
and Composing Robust Features with Denoising Autoencoders", ICML 2008), which favours the directions that several share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from thornbed.defenses.autoencoder import Autoencoder, explained_variance


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """An autoencoder and how its fit went.

    Attributes
    ----------
    autoencoder : in evaluation mode, its parameters without gradients.
    losses : one an epoch, the mean squared error in units of each agent's scale; of a linear one the single final one.
    explained_variance, by_agent : shares of the training rows' variance, at most 1, as
        `defenses.autoencoder.explained_variance` has them.
    """

    autoencoder: Autoencoder
    losses: list[float]
    explained_variance: float
    by_agent: list[float]


def fit_autoencoder(
    embeddings: Tensor,
    generator: torch.Generator,
    *,
    bottleneck: int,
    hidden: tuple[int, ...] = (),
    slope: float = 0.2,
    drop: float = 0.3,
    epochs: int = 200,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
) -> Fitted:
    """Return the autoencoder of clean training embeddings (N, M, d), finite, with its explained variance.

    Without `hidden` layers it is computed exactly, and `slope`, `epochs`, `batch_size` and `learning_rate` say nothing:
    the decoder spans the `bottleneck` directions that best predict all blocks from those that are left when each is
    blanked with probability `drop` (a reduced-rank regression; with drop = 0 the principal components), the encoder is
    the orthogonal projection on them, so that what is on the manifold comes back as it is, as Theorems 1 and 2 want.

    With hidden layers it is trained by Adam, whose rate falls to 0 along a half cosine, on the mean squared error of
    all blocks from the ones left over. Blanked blocks are the mean.

    Raises ValueError for embeddings that are no finite (N, M, d) with N >= 2, drop outside [0, 1), a bottleneck beyond
    M * d, and other options out of range.
    """
    _check(embeddings, bottleneck, drop, epochs, batch_size, learning_rate)
    mean = embeddings.mean(dim=0)
    scale = (embeddings - mean).square().mean(dim=(0, 2)).sqrt()
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))  # of an agent that always sends the same
    autoencoder = Autoencoder(mean, scale, bottleneck, generator, hidden=hidden, slope=slope)
    rows = (embeddings - mean) / scale[:, None]
    if hidden:
        losses = _train(autoencoder, embeddings, rows, generator, drop, epochs, batch_size, learning_rate)
    else:
        losses = [_solve(autoencoder, rows, drop)]
    autoencoder.eval().requires_grad_(False)
    share, by_agent = explained_variance(autoencoder, embeddings, mean)
    return Fitted(autoencoder=autoencoder, losses=losses, explained_variance=share, by_agent=by_agent)


def _solve(autoencoder: Autoencoder, rows: Tensor, drop: float) -> float:
    """Set the weights of a linear autoencoder from scaled rows (N, M, d) and return its mean squared error."""
    count, agents, dim = rows.shape
    flat = rows.flatten(1).double()
    covariance = flat.T @ flat / count  # S
    keep = 1 - drop
    same = torch.block_diag(*[covariance.new_ones(dim, dim)] * agents)
    # Of h with blocks blanked, h': E[h' h'^T] = keep^2 S + keep (1 - keep) blockdiag(S), and E[h h'^T] = keep S.
    blanked = keep**2 * covariance + keep * drop * covariance * same
    ridge = 1e-9 * float(blanked.trace()) / len(blanked) + torch.finfo(torch.float64).tiny
    predicted = (
        keep
        * covariance
        @ torch.linalg.solve(
            blanked + ridge * torch.eye(len(blanked), dtype=torch.float64, device=rows.device), keep * covariance
        )
    )
    directions = torch.linalg.eigh((predicted + predicted.T) / 2)[1][:, -autoencoder.output.in_features :]
    with torch.no_grad():
        cast(nn.Linear, autoencoder.encoder[-1]).weight.copy_(directions.T)
        autoencoder.output.weight.copy_(directions)
    return float((flat - flat @ directions @ directions.T).square().mean())


def _train(
    autoencoder: Autoencoder,
    embeddings: Tensor,
    rows: Tensor,
    generator: torch.Generator,
    drop: float,
    epochs: int,
    batch_size: int,
    learning_rate: float,
) -> list[float]:
    """Train the autoencoder and return the mean loss of each epoch; `rows` are the embeddings, scaled."""
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=learning_rate)
    losses = []
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = learning_rate * (1 + math.cos(math.pi * epoch / epochs)) / 2
        total = 0.0
        for batch in torch.randperm(len(rows), generator=generator).split(batch_size):
            left = torch.rand(len(batch), rows.shape[1], 1, generator=generator) >= drop
            here = batch.to(rows.device)
            given = torch.where(left.to(rows.device), embeddings[here], autoencoder.mean)
            found = (autoencoder(given) - autoencoder.mean) / autoencoder.scale[:, None]
            loss = (found - rows[here]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(batch)
        losses.append(total / len(rows))
    return losses


def _check(
    embeddings: Tensor, bottleneck: int, drop: float, epochs: int, batch_size: int, learning_rate: float
) -> None:
    if embeddings.ndim != 3 or len(embeddings) < 2 or not embeddings.is_floating_point():
        raise ValueError(
            f"fit_autoencoder needs embeddings (N, M, d) of N >= 2 rows: {embeddings.dtype} {tuple(embeddings.shape)}"
        )
    if not bool(embeddings.isfinite().all()):
        bad = int((~embeddings.flatten(1).isfinite().all(dim=1)).sum())
        raise ValueError(f"fit_autoencoder needs finite embeddings: {bad} of {len(embeddings)} rows are not")
    numbers = embeddings[0].numel()
    if not 1 <= bottleneck <= numbers:
        raise ValueError(f"fit_autoencoder needs 1 <= bottleneck <= M * d = {numbers}: bottleneck = {bottleneck}")
    if not 0 <= drop < 1:
        raise ValueError(f"fit_autoencoder needs 0 <= drop < 1: drop = {drop}")
    if epochs < 1 or batch_size < 1:
        raise ValueError(
            f"fit_autoencoder needs epochs >= 1 and batch_size >= 1: epochs = {epochs}, batch_size = {batch_size}"
        )
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"fit_autoencoder needs a finite learning_rate > 0: learning_rate = {learning_rate}")
