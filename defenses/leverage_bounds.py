"""The largest share that q of n blocks can have in the sum of their norms: exactly, from below, and from above.

All take blocks (n, r, k), of which the norms are those of W_i z for z in R^k, that together have full rank k, and speak
of the maximum over z of (the q largest |W_i z|) / (all |W_i z|). What is meant and where it comes from is said in
`defenses.leverage`.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

ASCENT_STEPS = 200
WEIGHT_STEPS = 60
CHUNK = 4096


def corners(rows: Tensor, q: int) -> tuple[float, Tensor]:
    """Return the exact share for blocks of one row, rows (n, k), and the z (k,) that attains it."""
    n, k = rows.shape
    best, found = 0.0, torch.zeros(k, dtype=rows.dtype)
    subsets = itertools.combinations(range(n), k - 1)
    while chunk := list(itertools.islice(subsets, CHUNK)):
        chosen = rows[torch.tensor(chunk, dtype=torch.int64).view(len(chunk), k - 1)]
        # The direction that k - 1 rows do not see: the last right singular vector.
        z = torch.linalg.svd(chosen, full_matrices=True)[2][:, -1] if k > 1 else torch.ones(1, 1, dtype=rows.dtype)
        shares = share(rows[:, None], z, q)
        place = int(shares.argmax())
        if float(shares[place]) > best:
            best, found = float(shares[place]), z[place]
    return best, found


def share(blocks: Tensor, z: Tensor, q: int) -> Tensor:
    """Return what the q largest of the blocks' norms at z (s, k) have of their sum, (s,)."""
    norms = torch.linalg.vector_norm(torch.einsum("nrk,sk->snr", blocks, z), dim=2)
    return norms.topk(q, dim=1).values.sum(dim=1) / norms.sum(dim=1)


def below(blocks: Tensor, q: int, starts: int, generator: torch.Generator) -> tuple[float, Tensor]:
    """Return a share that is attained, and where: the best of `starts` ascents a block.

    The first for each block begins where that block alone has most of the sum of squares, the others at random.
    """
    n, _, k = blocks.shape
    gram = blocks.transpose(1, 2) @ blocks
    whole = torch.linalg.cholesky(gram.sum(dim=0))
    white = torch.linalg.solve_triangular(whole, blocks.transpose(1, 2), upper=False)  # (n, k, r)
    first = torch.linalg.svd(white, full_matrices=False)[0][:, :, 0]
    first = torch.linalg.solve_triangular(whole.T, first.T, upper=True).T
    random = torch.randn((starts - 1) * n, k, generator=generator, dtype=blocks.dtype)
    z = torch.nn.functional.normalize(torch.cat([first, random]), dim=1)
    best, found = share(blocks, z, q), z.clone()
    for step in range(ASCENT_STEPS):
        z.requires_grad_()
        value = share(blocks, z, q)
        slope = torch.autograd.grad(value.sum(), z)[0]
        with torch.no_grad():
            better = value > best
            best, found = torch.where(better, value, best), torch.where(better[:, None], z, found)
            rate = 0.3 * 0.5 ** (step / 20)
            z = torch.nn.functional.normalize(z + rate * torch.nn.functional.normalize(slope, dim=1), dim=1)
    place = int(best.argmax())
    return float(best[place].detach()), found[place].detach()


def above(blocks: Tensor, q: int) -> float:
    """Return a bound on the share for all sets of q blocks at once: the q largest |A_ij| of the worst column."""
    weights = blocks.new_ones(1, len(blocks))
    best = math.inf
    for _ in range(WEIGHT_STEPS):
        columns = _spans(blocks, weights).topk(min(q, len(blocks)), dim=1).values.sum(dim=1)  # (1, n)
        best = min(best, float(columns.max()))
        weights = _evened(weights, columns)
    return min(best, 1.0)


def above_by_set(blocks: Tensor, q: int) -> float:
    """Return a bound on the share from each set of q blocks alone, written by the blocks that are not in it."""
    n = len(blocks)
    worst = 0.0
    subsets = itertools.combinations(range(n), q)
    while chunk := list(itertools.islice(subsets, CHUNK)):
        liars = torch.zeros(len(chunk), n, dtype=torch.bool)
        liars[torch.arange(len(chunk))[:, None], torch.tensor(chunk)] = True
        weights = (~liars).to(blocks.dtype)
        gram = torch.einsum("sn,nrk,nrl->skl", weights, blocks, blocks)
        if float(torch.linalg.eigvalsh(gram)[:, 0].min()) < 1e-9:
            return 1.0  # the others see next to nothing of some z, and rounding would eat what they do
        ratios = torch.full((len(chunk),), math.inf, dtype=blocks.dtype)
        for _ in range(WEIGHT_STEPS):
            columns = torch.einsum("sij,si->sj", _spans(blocks, weights), liars.to(blocks.dtype))
            ratios = torch.minimum(ratios, columns.max(dim=1).values)
            weights = _evened(weights, columns)
        # A bound that is no number is none: of weights so unlike that rounding has eaten it.
        worst = max(worst, float((ratios / (1 + ratios)).nan_to_num(nan=1.0, posinf=1.0).max()))
    return worst


def _spans(blocks: Tensor, weights: Tensor) -> Tensor:
    """Return |A_ij| (s, n, n) of the A with W_i = sum over j of A_ij W_j that least squares of weights (s, n) gives."""
    gram = torch.einsum("sn,nrk,nrl->skl", weights, blocks, blocks)
    seen = torch.linalg.solve(gram, blocks.flatten(0, 1).T.expand(len(weights), -1, -1))  # (s, k, n r)
    n, rank = blocks.shape[:2]
    spans = (blocks.flatten(0, 1) @ seen).view(-1, n, rank, n, rank).transpose(2, 3)
    return torch.linalg.matrix_norm(spans, ord=2) * weights[:, None]


def _evened(weights: Tensor, columns: Tensor) -> Tensor:
    """Return the weights (s, n) with less for columns that are larger than the mean of those that count."""
    counted = weights > 0
    mean = (columns * counted).sum(dim=1, keepdim=True) / counted.sum(dim=1, keepdim=True)
    factor = (mean / columns.clamp_min(1e-12)).clamp(0.5, 2) ** 0.5
    return torch.where(counted, weights * factor, 0.0).clamp_min(0)
