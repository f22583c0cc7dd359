"""Slow down clients whose updates of all rounds so far point the same way: sybils repeat each other, others do not.

Paper: Fung, Yoon and Beschastnikh, "The Limitations of Federated Learning in Sybil Settings", RAID 2020, Algorithm 1.
Different here: all coordinates count alike in the cosine, where they weigh the features of the output layer, which a
flat vector does not show; clients are compared with those of their round, as here not all take part in each; the step
is divided by n, so that it is the plain mean when nobody is slowed; only positive similarities are pardoned, because
for v_i < 0 < v_j the factor v_i / v_j turns an opposite direction into a similar one; and where all clients repeat each
other, which leaves them 0 / 0, nobody is followed.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thornbed.defenses.distances import cosine_distances
from thornbed.defenses.memory import remembered
from thornbed.defenses.reporting import acted
from thornbed.defenses.server import Server
from thornbed.defenses.update_matrix import LARGEST, like, update_matrix
from thornbed.defenses.weighted_mean import weighted_mean

_ROUNDING = 1e-12  # dissimilarity below this is rounding of a cosine of 1, and must not be divided by


def foolsgold(updates: Tensor, weights: Tensor, server: Server, *, confidence: float = 1.0) -> Tensor:
    """Return sum(rate[i] * update[i]) / n, where the rate in [0, 1] falls with the similarity to another client.

    updates: (n, d) floats, finite. weights are ignored: the rates take their place. confidence > 0 is kappa, the
    steepness of the logit. It does NOT stop one attacker alone, and it slows honest clients whose data are alike: the
    paper assumes that honest data differ more than those of the sybils.

    Memory: `sent_NUMBER`, the sum of all that client NUMBER ever sent, (d,) each: d floats for every client seen so
    far, which a checkpoint writes each round (100 clients of 11 million parameters are 4.4 GB). Beside it a call holds
    n * d floats. Reports `learning_rates`, one a client, and `slowed_share`, the share of clients below 1. A tensor on
    a GPU is copied to the CPU and the result back.

    Raises ValueError unless confidence is finite and > 0, when the numbers of the clients are not n different ones, or
    where the memory is of another d.
    """
    matrix = update_matrix("foolsgold", updates, weights)
    n, d = matrix.shape
    if not 0 < confidence < math.inf:
        raise ValueError(f"foolsgold needs a finite confidence > 0: confidence = {confidence}")
    if not n == len(server.clients) == len(set(server.clients)):
        raise ValueError(f"foolsgold needs one client number a row: n = {n}, clients = {list(server.clients)}")
    sent = np.empty((n, d), matrix.dtype)
    limit = matrix.dtype.type(LARGEST)
    for row, client in enumerate(server.clients):
        before = remembered("foolsgold", server, f"sent_{client}", d, matrix.dtype)
        with np.errstate(over="ignore"):  # a client that sends huge values twice must not bring an infinity in
            np.clip(matrix[row] + before, -limit, limit, out=sent[row])
    rates = learning_rates(1 - cosine_distances(sent), confidence)
    for row, client in enumerate(server.clients):
        server.memory[f"sent_{client}"] = torch.from_numpy(sent[row].copy())  # a view would keep all n rows alive
    acted(learning_rates=rates.tolist(), slowed_share=float((rates < 1).mean()))
    return like(updates, weighted_mean(matrix, np.arange(n), rates, divisor=float(n)))


def learning_rates(cosines: NDArray[np.float64], confidence: float) -> NDArray[np.float64]:
    """Return the n learning rates in [0, 1] from the (n, n) cosines of what the clients sent so far."""
    similar = cosines.copy()
    np.fill_diagonal(similar, -1.0)  # nobody is similar to itself
    most = similar.max(axis=1)
    pardoned = (most[:, None] > 0) & (most[:, None] < most[None, :])
    shares = np.divide(most[:, None], most[None, :], out=np.ones_like(similar), where=pardoned)
    rates = np.clip(1 - (similar * shares).max(axis=1), 0.0, 1.0)
    rates[rates < _ROUNDING] = 0.0
    if not rates.any():
        return rates
    rates /= rates.max()
    with np.errstate(divide="ignore"):  # the logit of 0 and of 1 are the infinities, and clipped
        logits = confidence * (np.log(rates / (1 - rates)) + 0.5)
    return np.clip(logits, 0.0, 1.0)
