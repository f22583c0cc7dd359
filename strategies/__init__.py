"""Server side: Flower strategies. Rules of defenses/aggregation need no strategy of their own.

`from strategies import FedAvg, InvariantAggregation, Curious` works in any Flower app of the message API.
"""

from strategies._cohort import AnyNodes, CannotBegin, Cohort, NumberedClients
from strategies._rounds import RoundAccount, RunStopped
from strategies.collaborative_inference import CollaborativeInference
from strategies.fedavg import FedAvg
from strategies.invariant_aggregation import InvariantAggregation
from strategies.mocha import Mocha
from strategies.split_nn import SplitNN
from strategies.wrappers.curious import Curious, Sighting
from strategies.wrappers.resumed import Resumed

__all__ = [
    "AnyNodes",
    "CannotBegin",
    "Cohort",
    "CollaborativeInference",
    "Curious",
    "FedAvg",
    "InvariantAggregation",
    "Mocha",
    "NumberedClients",
    "Resumed",
    "RoundAccount",
    "RunStopped",
    "Sighting",
    "SplitNN",
]
