"""How adversaries of vertical learning come to agree, each for itself and through letters alone.

Paper: S. Lee, W. Fang, A. B. Das, S. Hosseinalipour, D. J. Love, C. G. Brinton, "Cooperative Decentralized Backdoor
Attacks on Vertical Federated Learning", 2025, Sections III-A and IV-A. Before the first step each leaves its features
for its neighbours; in the first it thinks about what it was given. As soon as it knows which rows are the target's, and
has what those below it in the breadth-first tree of the leader sent up, it sends that up with its own vote; the leader
counts the votes, and the decision goes down the same way. Every letter is read a step after it was left, by a neighbour
only: an attack that knows at once poisons from the third step on where each is connected to all, and later on a line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import networkx as nx
import torch
from torch import Tensor

from thornbed.attacks.vertical import Adversary, VerticalAttack, View
from thornbed.attacks.vertical.coalition import breadth_first, decided, leader, to_poison
from thornbed.clients.channel import Channel, Moment
from thornbed.protocol.randomness import generator
from thornbed.tasks.blocks import Block

DECISION, FEATURES, VOTES = "decision", "features", "votes"


@dataclass(frozen=True, eq=False, kw_only=True)
class Collusion:
    """One adversary's side of it.

    Attributes
    ----------
    attack, graph, blocks, sample_shape, num_classes : what all adversaries know, blocks by adversary.
    known, labels : (k,) rows whose labels they know, and these.
    client : this adversary.
    channel : where the letters lie.
    seed : of the run; what the leader draws follows from it.
    """

    attack: VerticalAttack
    graph: nx.Graph
    blocks: Mapping[int, Block]
    sample_shape: tuple[int, ...]
    num_classes: int
    known: Tensor
    labels: Tensor
    client: int
    channel: Channel
    seed: int

    def share(self, x: Tensor, moment: Moment) -> None:
        """Leave its part of the samples, (N, c) in the order that all have in common, where a neighbour needs it."""
        name = f"{FEATURES}-{self.client}"
        if any(self.graph.neighbors(self.client)) and self.channel.read(name, moment) is None:
            self.channel.leave(name, {"x": x}, moment)

    def view(self, x: Tensor, moment: Moment) -> View | None:
        """Return what it knows; None as long as a neighbour has not left its features."""
        given: dict[int, Tensor] = {}
        for other in sorted(self.graph.neighbors(self.client)):
            if (letter := self.channel.read(f"{FEATURES}-{other}", moment)) is None:
                return None
            given[other] = letter["x"]
        return View(
            party=self.client,
            x=x,
            shared=given,
            blocks=self.blocks,
            sample_shape=self.sample_shape,
            known=self.known,
            labels=self.labels,
            target=self.attack.target,
            num_classes=self.num_classes,
        )

    def begins(self, view: View) -> Adversary:
        """Return the adversary that has thought about its view."""
        return self.attack.adversary(view, generator(self.seed, "adversary", self.client))

    def settle(self, member: Adversary, moment: Moment, source: torch.Generator) -> bool:
        """Vote and pass on what is to be passed on; take what was decided, and tell whether that has come."""
        tree = breadth_first(self.graph, leader(self.graph))
        above, below = next(tree.predecessors(self.client), None), sorted(tree.successors(self.client))
        self._send_up(member, above, below, moment)
        decision = self.channel.read(DECISION if above in (None, leader(self.graph)) else f"{DECISION}-{above}", moment)
        if decision is None:
            return False
        # Whoever has lost its state finds that it has passed the decision on: left again, it would be read later.
        if above is not None and below and self.channel.read(f"{DECISION}-{self.client}") is None:
            self.channel.leave(f"{DECISION}-{self.client}", decision, moment)
        member.agree(decision[f"poisoned-{self.client}"], source)
        return True

    def _send_up(self, member: Adversary, above: int | None, below: list[int], moment: Moment) -> None:
        """Leave all votes that have come from below, and its own, for the one above; the leader decides instead."""
        name = DECISION if above is None else f"{VOTES}-{self.client}"
        vote, letters = member.vote(), [self.channel.read(f"{VOTES}-{other}", moment) for other in below]
        came = [letter for letter in letters if letter is not None]
        if vote is None or len(came) < len(below) or self.channel.read(name) is not None:
            return
        votes = {str(self.client): vote}
        for letter in came:
            votes |= letter
        self.channel.leave(name, votes if above is not None else self._decided(votes, len(member.view.x)), moment)

    def _decided(self, letter: Mapping[str, Tensor], num_rows: int) -> dict[str, Tensor]:
        """Return by adversary the rows that are taken for the target's, and those that it poisons."""
        votes = {int(party): rows for party, rows in letter.items()}
        agreed = decided(votes, self.graph, self.attack.vote)
        poisoned = to_poison(agreed, num_rows, self.attack.budget, generator(self.seed, "poison"))
        decision = {f"agreed-{party}": rows for party, rows in agreed.items()}
        return decision | {f"poisoned-{party}": rows for party, rows in poisoned.items()}
