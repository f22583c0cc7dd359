"""The options of Flower's own FedAvg, with Flower's meaning: how many nodes take part, and what becomes of metrics."""

from __future__ import annotations

import inspect
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from logging import WARNING
from typing import Any

from flwr.app import MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords

from thornbed.protocol.messages import ARRAYS, CONFIG, NUM_EXAMPLES
from thornbed.protocol.reported import agreeing
from thornbed.strategies._cohort import AnyNodes, Cohort

MetricsAggregation = Callable[[list[RecordDict], str], MetricRecord]
"""`(replies, the name of the weight) -> metrics`: what Flower's strategies take too."""

OF_COHORT = ("fraction_train", "min_train_nodes", "min_available_nodes")
"""What is said of the nodes that train; a cohort of one's own says so itself."""


def median_metrics(replies: list[RecordDict], weighted_by: str) -> MetricRecord:
    """Return the median of every metric over the replies, one vote a client; of lists, value by value.

    Unlike a mean by claims, fewer than half of the clients cannot move it beyond what the others report.
    """
    records = [next(iter(reply.metric_records.values())) for reply in replies]
    found = MetricRecord()
    for name in records[0]:
        if name == weighted_by:
            continue
        columns = [record[name] for record in records]
        if isinstance(columns[0], list):
            found[name] = [float(statistics.median(values)) for values in zip(*columns, strict=True)]
        else:
            found[name] = float(statistics.median(columns))  # type: ignore[type-var, arg-type]
    return found


@dataclass(frozen=True, kw_only=True)
class FlowersOptions:
    """See `strategies.FedAvg`; raises ValueError where an option has no such value."""

    fraction_train: float = 1.0
    fraction_evaluate: float = 0.0
    min_train_nodes: int = 2
    min_evaluate_nodes: int = 2
    min_available_nodes: int = 2
    weighted_by_key: str = NUM_EXAMPLES
    arrayrecord_key: str = ARRAYS
    configrecord_key: str = CONFIG
    train_metrics_aggr_fn: MetricsAggregation | None = None
    evaluate_metrics_aggr_fn: MetricsAggregation | None = None

    def __post_init__(self) -> None:
        for name in ("fraction_train", "fraction_evaluate"):
            share = getattr(self, name)
            if not isinstance(share, int | float) or not 0 <= share <= 1:
                raise ValueError(f"{name} lies in [0, 1]: {name} = {share!r}")
        for name in ("min_train_nodes", "min_evaluate_nodes", "min_available_nodes"):
            count = getattr(self, name)
            if not isinstance(count, int) or isinstance(count, bool) or count < 0:
                raise ValueError(f"{name} is a whole number of nodes, 0 or more: {name} = {count!r}")
        for name in ("weighted_by_key", "arrayrecord_key", "configrecord_key"):
            key = getattr(self, name)
            if not isinstance(key, str) or not key:
                raise ValueError(f"{name} is a name in a record, such as 'arrays': {name} = {key!r}")
        if self.arrayrecord_key == self.configrecord_key:
            raise ValueError(
                f"arrayrecord_key and configrecord_key name two records of one message: both are "
                f"{self.arrayrecord_key!r}"
            )

    @classmethod
    def of(cls, strategy: type, given: Mapping[str, Any], cohort: object) -> FlowersOptions:
        """Return the options that a strategy of this class was given beside its own.

        Raises TypeError for a name that is none, for a cohort that is none, and ValueError where a cohort is given with
        an option that would draw another one.
        """
        names = [each.name for each in fields(cls)]
        if unknown := [name for name in given if name not in names]:
            parameters = inspect.signature(strategy).parameters.values()
            own = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
            taken = ", ".join([*own, *names])
            raise TypeError(f"{strategy.__name__} has no option {unknown[0]}; it takes {taken}")
        if cohort is not None:
            if not hasattr(cohort, "draw"):
                raise TypeError(
                    f"{strategy.__name__} takes a cohort first, such as NumberedClients, and the options of Flower's "
                    f"FedAvg by name: it was given {cohort!r}"
                )
            if drawing := [name for name in OF_COHORT if name in given]:
                raise ValueError(f"{drawing[0]} draws among all nodes, and a cohort draws itself: give one of the two")
        return cls(**given)

    def trainers(self, seed: int) -> Cohort:
        """Return who trains."""
        return AnyNodes(
            self.fraction_train or 1.0,  # of a share of 0 nobody is drawn at all
            min_nodes=self.min_train_nodes,
            min_available=self.min_available_nodes,
            seed=seed,
        )

    def evaluators(self, seed: int) -> Cohort:
        """Return who evaluates."""
        return AnyNodes(
            self.fraction_evaluate,
            min_nodes=self.min_evaluate_nodes,
            min_available=self.min_available_nodes,
            seed=seed,
            purpose="evaluation",
        )

    def averaged(
        self, replies: Mapping[int, RecordDict], server_round: int, make: MetricsAggregation | None
    ) -> MetricRecord:
        """Return what is made of the metrics of accepted replies, by client; without a function their weighted mean.

        The function sees replies alone that report the same finite numbers; see `protocol.reported.agreeing`.
        """
        agreed, left_out = agreeing(list(replies.values()))
        for index, reason in left_out.items():
            said = "The metrics of client %s are left out of those of round %s: %s"
            log(WARNING, said, list(replies)[index], server_round, reason)
        return (make or aggregate_metricrecords)(agreed, self.weighted_by_key) if agreed else MetricRecord()
