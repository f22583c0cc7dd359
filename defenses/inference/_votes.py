"""Votes of a network on changed copies of each query, and how sure they make one of its class."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from scipy.stats import beta
from torch import Tensor, nn

MOST_TRIALS = 10_000_000
COPIES = 32  # of the whole batch at once: 32 x 465 x 320 numbers are 19 MB


def count_votes(head: nn.Module, copies: Iterable[Tensor]) -> Tensor:
    """Return how many of the copies (c, n, M, d), over all chunks, the head gives to each class: (n, C) int64.

    A copy whose logits are not finite has no vote, so that the votes of a query may be fewer than its copies.
    """
    votes: Tensor | None = None
    with torch.no_grad():
        for chunk in copies:
            logits = head(chunk.flatten(0, 1))
            won = torch.nn.functional.one_hot(logits.argmax(dim=1), logits.shape[1])
            won = won * logits.isfinite().all(dim=1, keepdim=True)
            counted = won.view(*chunk.shape[:2], -1).sum(dim=0)
            votes = counted if votes is None else votes + counted
    assert votes is not None
    return votes


def chunks(trials: int, make: Callable[[int], Tensor]) -> Iterable[Tensor]:
    """Yield make(count) until there are `trials` copies, at most COPIES at a time."""
    for begin in range(0, trials, COPIES):
        yield make(min(COPIES, trials - begin))


def lower_bounds(votes: Tensor, trials: int, alpha: float) -> Tensor:
    """Return lower bounds (n,) float64 of the probability of the class with most votes, from votes (n, C) in `trials`.

    Clopper-Pearson bounds of confidence 1 - alpha / C: the class is chosen by the same votes that bound it, so the
    bound holds for all C classes together. J. Cohen et al. draw a second sample for that. A trial that gave no class
    its vote counts against each, as one for another class does.
    """
    most = votes.amax(dim=1).cpu().numpy().astype(np.float64)
    bounds = np.where(most > 0, beta.ppf(alpha / votes.shape[1], np.maximum(most, 1), trials - most + 1), 0.0)
    return torch.from_numpy(bounds).to(votes.device)


def check_votes(name: str, trials: int, alpha: float) -> None:
    """Raise ValueError unless trials are 1 to MOST_TRIALS and alpha lies inside (0, 1)."""
    if not 1 <= trials <= MOST_TRIALS:
        raise ValueError(f"{name} needs 1 <= trials <= {MOST_TRIALS}: trials = {trials}")
    if not 0 < alpha < 1:
        raise ValueError(f"{name} needs 0 < alpha < 1: alpha = {alpha}")
