"""Attacks on the update, one a file: `NAME(peers (k, d), generator, *, options) -> (d,)`.

`peers[0]` is the update that the attacker's own training gave, w_client - w_global of the parameters, float32. An
attack whose `NEEDS` has `Knowledge.OTHER_ATTACKERS` gets further rows: each is what an accomplice that was drawn in the
round too would honestly have sent. Without that declaration there is one row. An attack that must know more asks for a
third parameter, `sight: Sight`. Inputs are never modified; randomness comes from the generator alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What an attacker can find out in a round beside its own update; each is found out when it is called.

    Attributes
    ----------
    benign : trains honestly on the attacker's own clean data, from the server's model, and returns that update (d,).
    last_step : how far the server's model has moved (d,) since the latest earlier round in which an attacker called
        this; None where there is none. Needs `Knowledge.EARLIER_MODELS`.
    honest : returns what the honest clients of the round send (h, d), ascending by client. Needs
        `Knowledge.HONEST_UPDATES`.

    What needs knowledge that an attack does not declare raises ValueError.
    """

    benign: Callable[[], Tensor]
    last_step: Callable[[], Tensor | None] = lambda: _undeclared(
        "where the server's model was before", "EARLIER_MODELS"
    )
    honest: Callable[[], Tensor] = lambda: _undeclared("what honest clients send", "HONEST_UPDATES")


def _undeclared(asked: str, knowledge: str) -> NoReturn:
    raise ValueError(f"this attack asks {asked}, and its NEEDS does not say so; NEEDS takes Knowledge.{knowledge}")


def own_update(peers: Tensor) -> Tensor:
    """Return the attacker's own update (d,), the first of `peers` (k, d).

    Raises ValueError for other shapes: the first entry of a lone vector (d,) would pass for an update unseen.
    """
    if peers.ndim != 2 or len(peers) == 0:
        raise ValueError(
            f"an attack on the update needs peers of shape (k, d) with k >= 1: shape = {tuple(peers.shape)}"
        )
    return peers[0]


def outgoing(attack: Callable[..., Tensor], peers: Tensor, generator: torch.Generator, sight: Sight) -> Tensor:
    """Return what an attack of this folder sends (d,), giving it the sight only where it asks for it."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    asked = sum(parameter.kind in positional for parameter in inspect.signature(attack).parameters.values())
    return attack(peers, generator, sight) if asked > 2 else attack(peers, generator)
