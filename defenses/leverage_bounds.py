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
    seen = torch.linalg.svdvals(blocks.flatten(0, 1)).min()
    best = math.inf
    for _ in range(WEIGHT_STEPS):
        spans, left = _spans(blocks, weights)
        columns = spans.topk(min(q, len(blocks)), dim=1).values.sum(dim=1)  # (1, n)
        # What is left of W_i is at most |R_i| |z|, and |z| at most the sum of all |W_j z|, by the least singular value.
        bound = columns.max() + left.topk(min(q, len(blocks)), dim=1).values.sum() / seen
        if not bool(bound.isfinite()):
            break  # weights so unlike that nothing can be solved any more
        best = min(best, float(bound))
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
        least = torch.linalg.eigvalsh(gram)[:, 0]
        if float(least.min()) < 1e-9:
            return 1.0  # the others see next to nothing of some z, and rounding would eat what they do
        ratios = torch.full((len(chunk),), math.inf, dtype=blocks.dtype)
        for _ in range(WEIGHT_STEPS):
            spans, left = _spans(blocks, weights)
            columns = torch.where(liars[:, :, None], spans, 0.0).sum(dim=1)
            bounds = columns.max(dim=1).values + torch.where(liars, left, 0.0).sum(dim=1) / least.sqrt()
            ratios = torch.fmin(ratios, bounds)  # one that is no number is none
            weights = _evened(weights, columns)
        worst = max(worst, float((1 / (1 + 1 / ratios)).max()))  # 1 of an infinite one
    return worst


def _spans(blocks: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return |A_ij| (s, n, n) and |R_i| (s, n): W_i = sum over j of A_ij W_j + R_i, by least squares of weights (s, n).

    R_i is of rounding alone, and its own rounding is counted with it, so that any A gives a bound. Both are infinite
    where the weights are so unlike that there is no solution.
    """
    n, rank, k = blocks.shape
    gram = torch.einsum("sn,nrk,nrl->skl", weights, blocks, blocks)
    seen, _ = torch.linalg.solve_ex(gram, blocks.flatten(0, 1).T.expand(len(weights), -1, -1))  # (s, k, n r)
    solved = seen.isfinite().flatten(1).all(dim=1) & weights.isfinite().all(dim=1)
    seen = torch.where(solved[:, None, None], seen, 0.0)
    scale = torch.where(solved[:, None], weights, 0.0)
    parts = (blocks.flatten(0, 1) @ seen).view(-1, n, rank, n, rank).transpose(2, 3)  # (s, j, i, r_j, r_i)
    parts = parts * scale[:, :, None, None, None]
    norms = torch.linalg.matrix_norm(parts, ord=2).transpose(1, 2)
    rest = blocks - torch.einsum("sjiqr,jqk->sirk", parts, blocks)
    sizes = torch.linalg.matrix_norm(blocks, ord=2)
    rounding = n * rank * k * torch.finfo(blocks.dtype).eps * (sizes + norms @ sizes)
    left = torch.linalg.matrix_norm(rest, ord=2) + rounding
    return (
        torch.where(solved[:, None, None], norms, math.inf),
        torch.where(solved[:, None], left, math.inf),
    )


def _evened(weights: Tensor, columns: Tensor) -> Tensor:
    """Return the weights (s, n) with less for columns that are larger than the mean of those that count."""
    counted = weights > 0
    mean = (columns * counted).sum(dim=1, keepdim=True) / counted.sum(dim=1, keepdim=True)
    factor = (mean / columns.clamp_min(1e-12)).clamp(0.5, 2) ** 0.5
    return torch.where(counted, weights * factor, 0.0).clamp_min(0)
