"""The point of an affine manifold with the smallest sum of distances to agents' blocks, by reweighted least squares.

Papers: E. Weiszfeld, 1937, for points; Y. Sharon, J. Wright, Y. Ma, "Minimum Sum of Distances Estimator: Robustness and
Stability", ACC 2009, for the estimator; here over blocks, as in Liu, Xie, Koyejo, Li, "CoPur", NeurIPS 2022, Equation
5. Every iteration minimises the quadratic that touches from above the sum of distances, smoothed below a small part of
the sample's size. That part is halved in every iteration down to EPSILON (I. Daubechies, R. DeVore, M. Fornasier, S.
Güntürk, "Iteratively Reweighted Least Squares Minimization for Sparse Recovery", 2010): with the last one from the
start, a point that happens to lie near a lying agent's block would take very long to leave it. An iteration costs n
factorisations of k x k, whatever M * d is.

How far a point is from the minimum at most is known, too. The dual problem is max over u of the sum of <h_i - o_i, u_i>
with |u_i| <= 1 and the sum of W_i^T u_i zero; an iteration's weights times its residuals are such u but for their
lengths, by which they are divided where one is too long.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from thornbed.defenses.autoencoder import Autoencoder
from thornbed.defenses.purification import Manifold, Stage, block_norms

SEEN = 1e-6
EPSILON = 1e-6  # relative to the sample's size: a block that is exactly on the manifold keeps a finite weight


def reweighted(
    filled: Tensor, usable: Tensor, unit: Tensor, manifold: Manifold, *, steps: int, precision: float
) -> tuple[Tensor, Stage]:
    """Return the points (n, M, d) of the manifold for embeddings (n, M, d) with `usable` (n, M) blocks, and the course.

    A sample stops when no block of its point has moved by more than precision * 1e-2 * unit (n,) in an iteration, and
    then is no longer computed. Directions of which usable blocks tell less than SEEN of what all tell of any stay where
    the manifold's mean has them. Raises ValueError for a manifold that is no `Autoencoder` with an affine decoder.
    """
    if not isinstance(manifold, Autoencoder) or not manifold.is_affine:
        raise ValueError(
            'copur(solver="reweighted") needs an Autoencoder whose decoder is one linear layer; '
            'solver="gradient" takes any manifold'
        )
    start = manifold.encode(manifold.mean[None])[0].detach().double()
    # In double precision: the weights of blocks on and off the manifold differ by a factor of 1 / EPSILON.
    dtype, filled, unit = filled.dtype, filled.double(), unit.double()
    weight, offset = (tensor.to(filled) for tensor in manifold.last_layer())
    n, k = len(filled), weight.shape[2]
    away = filled - offset - weight @ start  # from the point that the mean is decoded to
    gram = torch.einsum("mdk,mdl->mkl", weight, weight)
    projected = torch.einsum("mdk,nmd->nmk", weight, away)
    told = _told(weight, usable)
    projected = projected if told is None else (told[:, None] @ projected[..., None])[..., 0]
    # A ridge far below what any usable block says: of equal blocks one may be left that counts.
    ridge, whole = torch.finfo(filled.dtype).eps, torch.eye(k).to(filled)

    curve = torch.full((steps + 1, n), math.nan, dtype=filled.dtype, device=filled.device)
    taken = torch.full((n,), steps, dtype=torch.int64, device=filled.device)
    converged = torch.zeros(n, dtype=torch.bool, device=filled.device)
    rows = torch.arange(n, device=filled.device)
    codes = filled.new_zeros(n, k)
    here = codes
    residual = away
    slope = torch.full((2, n), math.nan, dtype=filled.dtype, device=filled.device)
    lowest = torch.full((n,), -math.inf, dtype=filled.dtype, device=filled.device)  # what the dual problem has proved
    for step in range(steps + 1):
        distances = block_norms(residual)
        seen = usable[rows]
        curve[step, rows] = (distances * seen).sum(dim=1).detach()
        slope[min(step, 1), rows] = _slope(residual, seen, unit[rows], weight)
        if step == steps:
            break
        smooth = max(EPSILON, 0.5 ** (step + 1))
        weights = seen / distances.clamp_min(smooth * unit[rows, None])
        shares = weights / weights.sum(dim=1, keepdim=True).clamp_min(torch.finfo(filled.dtype).tiny)
        left = torch.einsum("nm,mkl->nkl", shares, gram)
        usual = left.diagonal(dim1=1, dim2=2).mean(dim=1).clamp_min(ridge)[:, None, None]
        if told is not None:  # what is not told of costs as much as anything, and gains nothing
            left = told[rows] @ left @ told[rows] + usual * (whole - told[rows])
        left = left + usual * ridge * k * whole
        right = torch.einsum("nm,nmk->nk", shares, projected[rows])
        before, here = here, torch.linalg.solve(left, right)
        change = torch.einsum("mdk,nk->nmd", weight, here - before)
        residual = away[rows] - torch.einsum("mdk,nk->nmd", weight, here)
        lowest[rows] = torch.maximum(lowest[rows], _dual(residual.detach(), weights.detach()))
        settled = (block_norms(change.detach()) <= 1e-2 * precision * unit[rows, None]).all(dim=1) & (smooth <= EPSILON)
        codes = codes.index_copy(0, rows, here)
        if bool(settled.any()):
            ended = rows[settled]
            taken[ended], converged[ended] = step + 1, True
            curve[step + 1, ended] = (block_norms(residual) * seen).sum(dim=1).detach()[settled]
            slope[1, ended] = _slope(residual[settled], seen[settled], unit[ended], weight)
            rows, here, residual = rows[~settled], here[~settled], residual[~settled]
            if len(rows) == 0:
                break
    best = curve.gather(0, taken[None])[0]  # of the point that is kept, which is the last one
    found = offset + torch.einsum("mdk,nk->nmd", weight, start + codes)
    return found.to(dtype), Stage(
        name="on the manifold",
        objective=curve.to(dtype),
        best=best.to(dtype),
        slope=slope.to(dtype),
        steps=taken,
        converged=converged,
        gap=((best - lowest).clamp_min(0) + torch.finfo(dtype).eps * best).to(dtype),  # `best` is told in that type
    )


def _told(weight: Tensor, usable: Tensor) -> Tensor | None:
    """Return for each sample the projection (n, k, k) of codes on what its usable blocks tell of; None: all, of all."""
    kinds, kind = usable.unique(dim=0, return_inverse=True)
    whole = torch.linalg.matrix_norm(weight.flatten(0, 1), ord=2)
    found, everything = [], True
    for blocks in kinds:
        _, sizes, right = torch.linalg.svd(weight[blocks].flatten(0, 1), full_matrices=True)
        rank = int((sizes > SEEN * whole).sum())
        everything &= rank == len(right)
        # Where all is told of, nothing is changed, not even by rounding.
        found.append(right[:rank].T @ right[:rank] if rank < len(right) else torch.eye(rank).to(weight))
    return None if everything else torch.stack(found)[kind]


def _dual(residual: Tensor, weights: Tensor) -> Tensor:
    """Return what the minimum is at least (s,), from residuals (s, m, d) of weighted least squares, weights (s, m)."""
    lengths = block_norms(residual)
    return (weights * lengths.square()).sum(dim=1) / (weights * lengths).amax(dim=1).clamp_min(1)


def _slope(residual: Tensor, seen: Tensor, unit: Tensor, weight: Tensor) -> Tensor:
    """Return the norm (s,) of the gradient, in the code, of the smoothed sum of distances over `seen` (s, m)."""
    pull = seen / block_norms(residual).clamp_min(EPSILON * unit[:, None])
    return torch.einsum("mdk,nmd,nm->nk", weight, residual, pull).norm(dim=1).detach()
