"""Vertical learning of one network in parts, SplitNN, on bare tensors: what a party does in a step, and the server.

Paper: I. Ceballos et al., "SplitNN-driven Vertical Partitioning", 2020; Lee et al., "Cooperative Decentralized Backdoor
Attacks on Vertical Federated Learning", 2025, Section II, for the networks and the notation.

A step is one message per party: "the gradient of your last embedding, and the rows to embed next", answered by an
embedding. Nothing is lost by it: a bottom model may learn from a gradient any time before it embeds again, so the
losses are those of the joint network trained in one place.

It lies under `tasks` for the same reason as `tasks.mocha`: clients, strategies and attacks all need it, and all may
import tasks. Nothing here knows Flower, an attack or a defense.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
