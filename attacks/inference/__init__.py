"""Attacks on collaborative inference: what corrupted agents send for a query in place of its embedding, one a file.

`NAME(sent, agents, sight, *, options) -> SentEmbeddings`: `sent` is what would have reached the fusion centre, `agents`
are the corrupted ones, and only what they send changes. Inputs are never modified, and nothing is random. `NEEDS` of
each module says what its attacker must know; what is not honest embeddings of its own is in `QuerySight`, and None
where the setting does not give it.

>>> import torch
>>> from thornbed.attacks.inference import SentEmbeddings, QuerySight, combined
>>> from thornbed.attacks.inference.feature_flip import feature_flip
>>> from thornbed.attacks.inference.missing import missing
>>> honest = SentEmbeddings(embeddings=torch.ones(1, 3, 2), observed=torch.ones(3, dtype=torch.bool))
>>> sent = combined(honest, [(missing, [0]), (feature_flip, [2])], QuerySight())  # threat model C of the CoPur paper
>>> sent.observed.tolist(), sent.embeddings[0, 1:].tolist()
([False, True, True], [[1.0, 1.0], [-10.0, -10.0]])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Network = Callable[[Tensor, Tensor], Tensor]
"""`(embeddings (n, M, d), observed (M,)) -> logits (n, C)`, differentiable in the embeddings."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SentEmbeddings:
    """What reaches the fusion centre of n queries: embeddings (n, M, d), and which agents (M,) bool sent any.

    The embeddings of an agent that sent nothing are NaN, so that nobody uses them by mistake. Raises ValueError for
    shapes that do not fit.
    """

    embeddings: Tensor
    observed: Tensor

    def __post_init__(self) -> None:
        if self.embeddings.ndim != 3 or not self.embeddings.is_floating_point():
            raise ValueError(
                "what is sent are floating-point embeddings (n, M, d): "
                f"{self.embeddings.dtype} {tuple(self.embeddings.shape)}"
            )
        if self.observed.dtype != torch.bool or self.observed.shape != self.embeddings.shape[1:2]:
            raise ValueError(
                f"what is sent has one bool an agent in observed: M = {self.embeddings.shape[1]}, "
                f"observed is {self.observed.dtype} {tuple(self.observed.shape)}"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class QuerySight:
    """What an attacker may know besides its own embeddings; None is what it does not.

    Attributes
    ----------
    labels : (n,) int64, the true labels of the queries.
    network : the fusion centre's model without its defense. Whoever differentiates through it on whole embeddings
        knows what the other agents send, too.
    defended : the same with the defense, as the fusion centre predicts.
    """

    labels: Tensor | None = None
    network: Network | None = None
    defended: Network | None = None


Attack = Callable[[SentEmbeddings, Sequence[int], QuerySight], SentEmbeddings]


def combined(sent: SentEmbeddings, parts: Sequence[tuple[Attack, Sequence[int]]], sight: QuerySight) -> SentEmbeddings:
    """Return what is sent after each (attack, agents) in turn; an attack sees what those before it have done.

    Raises ValueError where an agent is in two of them: it cannot both lie and be silent.
    """
    everybody = [agent for _, agents in parts for agent in agents]
    if twice := sorted({agent for agent in everybody if everybody.count(agent) > 1}):
        raise ValueError(f"agent {twice[0]} is given {everybody.count(twice[0])} attacks; it can carry out one")
    for attack, agents in parts:
        sent = attack(sent, agents, sight)
    return sent


def corrupted(name: str, sent: SentEmbeddings, agents: Sequence[int]) -> Tensor:
    """Check the agents of the attack `name` and return them as a mask (M,) bool.

    Raises ValueError for agents that do not exist, are named twice, or have sent nothing, and for more than there are.
    """
    count = sent.embeddings.shape[1]
    if len(agents) > count:
        raise ValueError(f"{name} has more attackers than there are agents: {len(agents)} attackers, {count} agents")
    if wrong := [agent for agent in agents if not 0 <= agent < count]:
        raise ValueError(f"{name} attacks with agents from 0 to {count - 1}: there is no agent {wrong[0]}")
    if len(set(agents)) != len(agents):
        raise ValueError(f"{name} names an agent twice: {len(agents)} names, {len(set(agents))} agents")
    mask = torch.zeros(count, dtype=torch.bool, device=sent.embeddings.device)
    mask[list(agents)] = True
    if silent := (mask & ~sent.observed.to(mask.device)).nonzero()[:, 0].tolist():
        raise ValueError(f"{name} cannot use agent {silent[0]}, which sent nothing ({len(silent)} such)")
    return mask
