"""Federated learning that follows only the directions most clients agree on.

Paper: Wang, Dimitriadis, Koyejo, Tople, "Invariant Aggregator for Defending against Federated Backdoor Attacks",
AISTATS 2024, Algorithm 1.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from thornbed.defenses.aggregation.invariant import invariant
from thornbed.strategies._cohort import Cohort
from thornbed.strategies.fedavg import FedAvg


class InvariantAggregation(FedAvg):
    """`FedAvg` with the rule `defenses.aggregation.invariant`; `tau` and `alpha` are that rule's options.

    flowers : the options of Flower's FedAvg that `FedAvg` takes.

    Raises ValueError for options that no number of clients goes with.
    """

    def __init__(
        self,
        cohort: Cohort | None = None,
        min_replies: int = 1,
        *,
        tau: float = 0.2,
        alpha: float = 0.25,
        **flowers: Any,
    ) -> None:
        if not 0 <= tau < 1 or not 0 <= alpha < 0.5:
            raise ValueError(
                f"invariant_aggregation needs 0 <= tau < 1 and 0 <= alpha < 0.5: tau = {tau}, alpha = {alpha}"
            )
        super().__init__(cohort, min_replies, rule=partial(invariant, tau=tau, alpha=alpha), **flowers)
