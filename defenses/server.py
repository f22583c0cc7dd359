"""What an aggregating server holds beside the updates of a round, for rules that need more than a matrix.

A rule that asks for a third parameter, `NAME(updates, weights, server, *, options)`, is given a `Server`; the others
never see one. So what a rule knows stands in its signature, and a rule stays a function: what it remembers lies in
`server.memory`, which a run keeps with its checkpoint.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Rule = Callable[..., Tensor]
"""`(updates (n, d), weights (n,)) -> (d,)`, or the same with a `Server` as third parameter."""


def _no_trusted_data(num_samples: int) -> Tensor:
    raise ValueError(f"this server has no trusted data to train on: {num_samples} samples were asked for")


@dataclass(frozen=True, kw_only=True)
class Server:
    """The server's side of one round.

    Attributes
    ----------
    clients : the number of the client that sent each row of the updates, n of them.
    generator : the server's randomness of this round; the same for the same seed and round.
    memory : what the rule keeps from round to round, tensors by name; empty before the first. A rule replaces entries
        and never changes a tensor in place. A run saves it beside the model, so that a resumed run goes on exactly.
    root_update : trains the model of this round on so many trusted samples, and returns that update (d,). Raises
        ValueError where the server has none.
    """

    clients: Sequence[int]
    generator: torch.Generator
    memory: dict[str, Tensor] = field(default_factory=dict)
    root_update: Callable[[int], Tensor] = _no_trusted_data


def takes_server(rule: Rule) -> bool:
    """Tell whether a rule asks for the server as its third parameter."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in kinds for parameter in inspect.signature(rule).parameters.values()) > 2


def aggregate(rule: Rule, updates: Tensor, weights: Tensor, server: Server) -> Tensor:
    """Apply a rule of either kind: updates (n, d) float32 or float64 and weights (n,) -> (d,)."""
    more: tuple[Any, ...] = (server,) if takes_server(rule) else ()
    return rule(updates, weights, *more)
