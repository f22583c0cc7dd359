"""Take the geometric median of the updates: the point with the smallest sum of distances to them.

Paper: Pillutla, Kakade and Harchaoui, "Robust Aggregation for Federated Learning", IEEE Transactions on Signal
Processing 2022, Algorithm 2 (the smoothed Weiszfeld algorithm). Four things differ. The paper weighs clients by their
samples; here claims are ignored, since who claims half of the samples would be the median. The paper smooths distances
below an absolute 1e-6 and stops after 3 iterations, each of which costs it a round of secure averaging; here the
smoothing is relative to the distances of the round, so that the rule does not depend on the learning rate, and
iterations cost n^2 in the matrix of inner products (`defenses.inner_products`), so they run until nothing moves. They
begin at the coordinate-wise median, because from the mean an outlier at 1e20 takes dozens of iterations to forget;
where they end is the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from thornbed.defenses.inner_products import inner_products
from thornbed.defenses.order_statistics import kept_mean
from thornbed.defenses.reporting import acted
from thornbed.defenses.update_matrix import like, update_matrix
from thornbed.defenses.weighted_mean import weighted_mean

_SETTLED = 1e-10  # relative change of every weight; float32 rounds the result to 6e-8
_SMALLEST = 1e-60  # far below any difference that matters, and its inverse is far from the largest float64


def rfa(updates: Tensor, weights: Tensor, *, num_iterations: int = 1000, smoothing: float = 1e-6) -> Tensor:
    """Return the geometric median of the updates, as the mean by the weights where Weiszfeld's iterations settle.

    updates: (n, d) floats, finite. weights are ignored: they are claims. num_iterations >= 1 is the most that is done;
    they stop when no weight changes by more than 1e-10 of itself. smoothing > 0: distances count as at least
    `smoothing` times the median distance to the coordinate-wise median, which keeps a weight finite where the iterate
    meets a client. Fewer than half of the clients cannot lead the result away, only by a multiple of the honest spread.

    Reports `downweighted_share` (clients that weigh less than half of the 1/n that the mean would give them),
    `weiszfeld_weights` (one a client, summing to 1) and `iterations`. A tensor on a GPU is copied to the CPU and the
    result back.

    Raises ValueError when num_iterations < 1 or smoothing is not a positive finite number.
    """
    matrix = update_matrix("rfa", updates, weights)
    n = matrix.shape[0]
    if num_iterations < 1:
        raise ValueError(f"rfa needs num_iterations >= 1: n = {n}, num_iterations = {num_iterations}")
    if not 0 < smoothing < float("inf"):
        raise ValueError(f"rfa needs a finite smoothing > 0: n = {n}, smoothing = {smoothing}")
    centre, _ = kept_mean(matrix, (n - 1) // 2)
    shares, iterations = _weiszfeld(inner_products(matrix, centre), num_iterations, smoothing)
    downweighted = float((shares < 0.5 / n).mean())
    acted(downweighted_share=downweighted, weiszfeld_weights=shares.tolist(), iterations=iterations)
    return like(updates, weighted_mean(matrix, np.arange(n), shares))


def _weiszfeld(products: NDArray[np.float64], num_iterations: int, smoothing: float) -> tuple[NDArray[np.float64], int]:
    """Return the weights of the rows and how often they were renewed, from the rows' inner products about a centre."""
    squares = np.diag(products)
    distances = np.sqrt(squares)  # from the first iterate, which is the centre
    least = max(smoothing * float(np.median(distances)), _SMALLEST)
    shares = np.zeros(len(squares))
    iterations, settled = 0, False
    while iterations < num_iterations and not settled:
        iterations += 1
        inverse = 1 / np.maximum(distances, least)
        before, shares = shares, inverse / inverse.sum()  # beta in Algorithm 2, divided by its sum
        settled = bool((np.abs(shares - before) <= _SETTLED * before).all())
        along = products @ shares
        distances = np.sqrt(np.maximum(squares - 2 * along + shares @ along, 0.0))
    return shares, iterations
