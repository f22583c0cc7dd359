"""Server side: Flower strategies. Rules of defenses/aggregation need no strategy of their own.

`from thornbed.strategies import FedAvg, InvariantAggregation, Curious` goes with a client app of Flower's message API
that answers `train` with one array record, the model under the names it came with, and one metric record holding
`num-examples`, as the client apps of Flower's templates do; options of Flower's FedAvg are taken by name. Strategies of
other schemes need this project's clients.
"""

from thornbed.strategies._cohort import AnyNodes, CannotBegin, Cohort, NumberedClients
from thornbed.strategies._flowers_options import median_metrics
from thornbed.strategies._rounds import RoundAccount, RunStopped
from thornbed.strategies._virtual_nodes import WHAT_TO_TRY, ClientsDied, VirtualNodes
from thornbed.strategies.collaborative_inference import CollaborativeInference
from thornbed.strategies.fedavg import FedAvg
from thornbed.strategies.invariant_aggregation import InvariantAggregation
from thornbed.strategies.mocha import Mocha
from thornbed.strategies.split_nn import SplitNN
from thornbed.strategies.wrappers.curious import Curious, Sighting
from thornbed.strategies.wrappers.resumed import Resumed

__all__ = [
    "WHAT_TO_TRY",
    "AnyNodes",
    "CannotBegin",
    "ClientsDied",
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
    "VirtualNodes",
    "median_metrics",
]
