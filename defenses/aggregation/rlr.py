"""Go backwards in the coordinates where too few clients agree on the sign: the robust learning rate.

Paper: Ozdayi, Kantarcioglu and Gel, "Defending against Backdoors in Federated Learning with Robust Learning Rate",
AAAI 2021 (the learning rate of a coordinate is eta where |sum of signs| >= theta and -eta elsewhere). There theta is a
number of clients, 4 of 10 in the example that the authors publish; here a share, so that it fits rounds of any size,
with that default. eta is 1: the step of the server is not the rule's.
"""

from __future__ import annotations

from torch import Tensor

from thornbed.defenses.order_statistics import quorum
from thornbed.defenses.reporting import acted
from thornbed.defenses.sign_votes import mean_flipped_below
from thornbed.defenses.update_matrix import like, update_matrix
from thornbed.defenses.weighted_mean import claimed_shares


def rlr(updates: Tensor, weights: Tensor, *, threshold: float = 0.4) -> Tensor:
    """Return the weighted mean of the updates, negated where |sum of signs| < threshold * n.

    updates: (n, d) floats, finite. weights: (n,), shares of the samples that sum to 1 up to rounding; as in the paper
    the mean is FedAvg's and believes them, while every client has one vote on the sign. threshold in [0, 1] is theta
    as a share of the clients, without rounding errors (8 of 20 is enough for 0.4); 0 is FedAvg. It does NOT bound what
    one client can do to the mean, and where honest clients disagree it goes back on them too.

    Reports `flipped_share`, the share of coordinates negated (those with a mean of 0 do not count). A tensor on a GPU
    is copied to the CPU and the result back.

    Raises ValueError when threshold is out of range, a weight is negative or the sum is more than 0.001 away from 1.
    """
    matrix = update_matrix("rlr", updates, weights)
    n, d = matrix.shape
    shares = claimed_shares("rlr", weights)
    values, flipped = mean_flipped_below(matrix, shares, quorum("rlr", threshold, n))
    acted(flipped_share=flipped / d)
    return like(updates, values)
