"""What clients that lie make of their embeddings: the attacks they carry out together, and what they know for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thornbed.attacks import Knowledge
from thornbed.attacks.inference import Attack, Network, QuerySight, SentEmbeddings, combined


@dataclass(frozen=True, eq=False)
class Part:
    """An attack, the clients that carry it out, and what its module says that it needs."""

    attack: Attack
    agents: tuple[int, ...]
    needs: frozenset[Knowledge]


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """All that there is to know about n queries; who attacks is given no more of it than the attack needs.

    Attributes
    ----------
    honest : (n, M, c), what every client would send; NaN where nobody who attacks knows it.
    labels : (n,) int64, the true ones.
    network, defended : as in `attacks.inference.QuerySight`.
    """

    honest: Tensor
    labels: Tensor | None = None
    network: Network | None = None
    defended: Network | None = None


class Coalition:
    """Clients that lie, each in one part of what they do; they act as one, and know what any part needs.

    Raises ValueError where a client is in two parts.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)
        self.agents = tuple(sorted(agent for part in parts for agent in part.agents))
        self.needs = frozenset(each for part in parts for each in part.needs)
        if twice := sorted({agent for agent in self.agents if self.agents.count(agent) > 1}):
            raise ValueError(f"client {twice[0]} is given {self.agents.count(twice[0])} attacks; it can carry out one")

    def send(self, world: World) -> Mapping[int, Tensor | None]:
        """Return what each of its clients sends, (n, c), None where that is nothing."""
        embeddings = world.honest
        if Knowledge.OTHER_EMBEDDINGS not in self.needs:
            blind = torch.full_like(embeddings, torch.nan)
            blind[:, list(self.agents)] = embeddings[:, list(self.agents)]
            embeddings = blind
        everybody = torch.ones(embeddings.shape[1], dtype=torch.bool)
        sent = combined(
            SentEmbeddings(embeddings=embeddings, observed=everybody),
            [(part.attack, part.agents) for part in self.parts],
            QuerySight(
                labels=world.labels if Knowledge.TRUE_LABELS in self.needs else None,
                network=world.network if Knowledge.FUSION_MODEL in self.needs else None,
                defended=world.defended if Knowledge.DEFENSE in self.needs else None,
            ),
        )
        return {
            agent: sent.embeddings[:, agent].detach().clone() if bool(sent.observed[agent]) else None
            for agent in self.agents
        }
