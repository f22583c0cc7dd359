"""How many lying agents a manifold tolerates: the block-wise incomplete leverage constant, exact or between bounds.

Paper: Liu, Xie, Koyejo, Li, "CoPur: Certifiably Robust Collaborative Inference via Feature Purification", NeurIPS 2022,
Theorems 2 and 4 and Remark 2. For W (M, d, k), the last layer of a decoder, and observed agents O,

    c_q = min over q agents L of O, min over z != 0, of  sum over O \\ L of |W_i z|  /  sum over O of |W_i z|,

and c_q > 1/2 is enough for q liars never to win, whatever they send: differences of points of the manifold are W z, for
z among all vectors (an affine decoder, for which it is also necessary) or some of them. The paper leaves computing it
as future work, to be done as in Y. Sharon, J. Wright, Y. Ma, "Minimum Sum of Distances Estimator: Robustness and
Stability", ACC 2009, Algorithm 1, for scalar measurements.

Write t(L) = max over z of  sum over L of |W_i z|  /  sum over O \\ L of |W_i z|, so that c_q = 1 / (1 + max t), and
c_q > 1/2 where t < 1 for all L. The maximum of a convex function over a convex set is found

- exactly where each block has rank 1 at most (d = 1, or k = 1): |W_i z| = s_i |b_i . z|, the set is a polytope, and at
  its corners k - 1 independent of the b_i . z are zero. This is Sharon's enumeration.
- otherwise from below by ascent from many starts: a z that is found refutes.
- otherwise from above by weights: if W_i = sum over j of A_ij W_j for i in L, j in O \\ L, then |W_i z| is at most the
  sum over j of |A_ij| |W_j z|, and t(L) at most the largest over j of the sum over i of |A_ij| (spectral norms). Any
  such A certifies, and one is sought by weighted least squares; for agents that all have the same W it is exact. Where
  there are too many sets L to try, one A for all agents bounds them together, less tightly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from thornbed.defenses.leverage_bounds import above, above_by_set, below, corners

MOST_SETS = 20_000  # sets of liars that are bounded one by one
MOST_CORNERS = 200_000
ROUNDING = 1e-7  # c_q so near 1/2 may as well be 1/2, at which liars win
GAIN = 1e-6  # what the observed agents see of a difference, below which they see nothing of it


@dataclass(frozen=True, kw_only=True, eq=False)
class Leverage:
    """c_q for one q.

    Attributes
    ----------
    num_corrupted : q.
    low, high : c_q is at least `low`, which is certified, and at most `high`, which some z attains.
    exact : whether the two are the same number, found by enumeration.
    worst : the q agents that attain `high`; direction (M, d) : the W z with which they do. Agents that send a point of
        the manifold moved by it look as honest as the others, or more, where c_q <= 1/2.
    """

    num_corrupted: int
    low: float
    high: float
    exact: bool
    worst: tuple[int, ...]
    direction: Tensor

    @property
    def tolerated(self) -> bool | None:
        """Whether so many liars cannot win; None where the bounds do not say. At exactly 1/2 they can."""
        if self.low > 0.5 + ROUNDING:
            return True
        return False if self.high <= 0.5 + ROUNDING else None


@dataclass(frozen=True, kw_only=True, eq=False)
class Certificate:
    """What an observed set of agents tolerates.

    Attributes
    ----------
    observed : the agents.
    determined : whether the observed blocks determine the point of the manifold when all are honest (Theorem 1).
    levels : c_q for q = 1, 2, ... below half of the agents, up to the first that is refuted; none if not `determined`.
    tolerated : the largest q that is certified for Theorem 2; 0 is no liar.
    refuted_at : the smallest q for which liars are known that win against some point; half of the agents always do.
    gain : the smallest |W_O z| / |W z|: how much of a difference the observed blocks show at least.
    """

    observed: tuple[int, ...]
    determined: bool
    levels: tuple[Leverage, ...]
    tolerated: int
    refuted_at: int
    gain: float

    def steepness(self, num_corrupted: int) -> float:
        """Return (2 c_q - 1) gain: by how much the sum of distances rises at least per |v| that a point is moved by.

        From a point of the manifold that honest agents have sent, whatever q liars have. 0 where so many are not
        certified, or the point is not determined. Raises ValueError for fewer than 0 liars.
        """
        if num_corrupted < 0:
            raise ValueError(f"a certificate needs num_corrupted >= 0: num_corrupted = {num_corrupted}")
        if num_corrupted > self.tolerated or not self.determined:
            return 0.0
        constant = self.levels[num_corrupted - 1].low if num_corrupted else 1.0
        return (2 * constant - 1) * self.gain

    def radius(self, delta: float, num_corrupted: int) -> float:
        """Return Theorem 4's Delta: a bound on |AE(l) - AE(l*)| where AE moves l* by at most `delta` in sum of blocks.

        Delta = 2 delta / ((2 c_q - 1) gain), since the sum over O of |v_i| is at least |v_O|, which is at least gain
        times |v|. It holds for the minimum of Equation 6, and where AE is a projection on the manifold, as affine ones
        of `fit_autoencoder` are, by the same steps for the minimum on the manifold (copur's stage one), which for
        tau >= 1 is one of its stage two: going from l to AE(l) saves tau |AE(l) - l| and costs |AE(l) - l| at most.
        With no liar it is Theorem 3. Where the minimum is missed by a gap g of the objective, g / steepness is to be
        added, by the same steps. Infinite where so many liars are not certified, or the point is not determined.

        Raises ValueError for a delta that is negative or not finite, and for fewer than 0 liars.
        """
        if not 0 <= delta < math.inf or num_corrupted < 0:
            raise ValueError(
                "a radius needs a finite delta >= 0 and num_corrupted >= 0: "
                f"delta = {delta}, num_corrupted = {num_corrupted}"
            )
        steepness = self.steepness(num_corrupted)
        return 2 * delta / steepness if steepness else math.inf


def certify(weight: Tensor, observed: Tensor, generator: torch.Generator, *, starts: int = 16) -> Certificate:
    """Return how many liars the manifold of last layer `weight` (M, d, k) tolerates among `observed` (M,) bool.

    Where no enumeration is possible, `starts` ascents an agent seek what refutes; more can only bring `high` down. An
    agent whose W_i is zero says nothing, and counts all the same.

    Raises ValueError for shapes that do not fit, weights that are not finite or all zero, nobody observed, and fewer
    than one start.
    """
    agents = _check(weight, observed, starts)
    basis = _orthonormal(weight)
    shown = basis[agents]
    sizes = torch.linalg.svdvals(shown.flatten(0, 1))
    gain = float(sizes.min()) if shown[:, :, 0].numel() >= shown.shape[2] else 0.0
    determined = gain > GAIN
    # With z counted by what the observed agents see of it no bound suffers from their seeing little of some.
    seen, turn = torch.linalg.qr(shown.flatten(0, 1))
    blocks = seen.view(*shown.shape[:2], -1)
    levels: list[Leverage] = []
    refuted = (len(agents) + 1) // 2 if determined else 0
    for q in range(1, refuted):
        level = _level(blocks, agents, q, starts, generator)
        direction = basis @ torch.linalg.solve_triangular(turn, level.direction[:, None], upper=True)[:, 0]
        levels.append(replace(level, direction=direction))
        if level.tolerated is False:
            refuted = q
            break
    certain = 0
    while certain < len(levels) and levels[certain].tolerated:
        certain += 1
    return Certificate(
        observed=tuple(agents),
        determined=determined,
        levels=tuple(levels),
        tolerated=certain,
        refuted_at=refuted,
        gain=gain if determined else 0.0,
    )


def _level(shown: Tensor, agents: list[int], q: int, starts: int, generator: torch.Generator) -> Leverage:
    """Return c_q from the largest share of q agents in the sum of norms, or its bounds: c_q = 1 - share.

    `shown` (|O|, d, r) are what the agents show of z, with orthonormal columns; `direction` of the result is such a z.
    """
    blocks = _square(shown)
    exact = blocks.shape[1] == 1 and math.comb(len(agents), blocks.shape[2] - 1) <= MOST_CORNERS
    if exact:
        attained, z = corners(blocks[:, 0], q)
        bound = attained
    else:
        attained, z = below(blocks, q, starts, generator)
        few = math.comb(len(agents), q) <= MOST_SETS
        bound = max(attained, min(above(blocks, q), above_by_set(blocks, q) if few else math.inf))
    worst = torch.linalg.vector_norm(shown @ z, dim=1).topk(q).indices.sort().values
    return Leverage(
        num_corrupted=q,
        low=max(0.0, 1 - bound),
        high=1 - attained,
        exact=exact,
        worst=tuple(agents[i] for i in worst.tolist()),
        direction=z,
    )


def _orthonormal(weight: Tensor) -> Tensor:
    """Return weights (M, d, r) of the same range, float64, with orthonormal columns.

    A singular value within the rounding of the weights' own type is taken for 0.
    """
    left, sizes, _ = torch.linalg.svd(weight.double().cpu().flatten(0, 1), full_matrices=False)
    rounding = max(weight.shape[0] * weight.shape[1], weight.shape[2]) * torch.finfo(weight.dtype).eps
    return left[:, sizes > rounding * sizes.max()].reshape(*weight.shape[:2], -1)


def _square(blocks: Tensor) -> Tensor:
    """Return blocks (n, r, k) with |W_i z| as before and as few rows as the largest rank among them, at least one."""
    _, sizes, right = torch.linalg.svd(blocks, full_matrices=False)
    rank = max(1, int((sizes > len(blocks) * torch.finfo(blocks.dtype).eps).sum(dim=1).max()))
    return (sizes[:, :, None] * right)[:, :rank]


def _check(weight: Tensor, observed: Tensor, starts: int) -> list[int]:
    if weight.ndim != 3 or not bool(weight.isfinite().all()) or not bool(weight.any()):
        raise ValueError(f"a certificate needs finite weights (M, d, k), not all zero: shape {tuple(weight.shape)}")
    if observed.dtype != torch.bool or observed.shape != weight.shape[:1]:
        raise ValueError(
            f"a certificate needs one bool an agent: M = {len(weight)}, observed is {observed.dtype} "
            f"{tuple(observed.shape)}"
        )
    agents: list[int] = observed.nonzero()[:, 0].tolist()
    if not agents:
        raise ValueError(f"a certificate needs at least one observed agent: M = {len(weight)}, observed = 0")
    if starts < 1:
        raise ValueError(f"a certificate needs starts >= 1: starts = {starts}")
    return agents
