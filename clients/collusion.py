"""How adversaries of vertical learning come to agree, each for itself and through letters alone.

Paper: S. Lee, W. Fang, A. B. Das, S. Hosseinalipour, D. J. Love, C. G. Brinton, "Cooperative Decentralized Backdoor
Attacks on Vertical Federated Learning", 2025, Sections III-A and IV-A. Before the first step each leaves its features
for its neighbours; in the first it thinks about what it was given; as soon as it knows which rows are the target's it
leaves its vote; the leader counts the votes, and leaves what was decided. An attack that knows at once poisons from the
third step on, since every letter is read a step after it was left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import networkx as nx
import torch
from torch import Tensor

from attacks.vertical import Adversary, VerticalAttack, View
from attacks.vertical.coalition import decided, leader, to_poison
from clients.mailbox import Mailbox, Moment
from protocol.randomness import generator
from tasks.blocks import Block

DECISION, FEATURES, VOTE = "decision", "features", "vote"


@dataclass(frozen=True, eq=False, kw_only=True)
class Collusion:
    """One adversary's side of it.

    Attributes
    ----------
    attack, graph, blocks, sample_shape, num_classes : what all adversaries know, blocks by adversary.
    known, labels : (k,) rows whose labels they know, and these.
    client : this adversary.
    box : where the letters lie.
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
    box: Mailbox
    seed: int

    def share(self, x: Tensor, moment: Moment) -> None:
        """Leave its part of the samples, (N, c) in the order that all have in common, where a neighbour needs it."""
        name = f"{FEATURES}-{self.client}"
        if any(self.graph.neighbors(self.client)) and self.box.read(name, moment) is None:
            self.box.leave(name, {"x": x}, moment)

    def view(self, x: Tensor, moment: Moment) -> View | None:
        """Return what it knows; None as long as a neighbour has not left its features."""
        given: dict[int, Tensor] = {}
        for other in sorted(self.graph.neighbors(self.client)):
            if (letter := self.box.read(f"{FEATURES}-{other}", moment)) is None:
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
        """Vote, count where it is the leader, and take what was decided; tell whether that has come."""
        name, vote = f"{VOTE}-{self.client}", member.vote()
        if vote is not None and self.box.read(name, moment) is None:
            self.box.leave(name, {"rows": vote}, moment)
        if self.client == leader(self.graph) and self.box.read(DECISION, moment) is None:
            self._count(len(member.view.x), moment)
        decision = self.box.read(DECISION, moment)
        if decision is not None:
            member.agree(decision[f"poisoned-{self.client}"], source)
        return decision is not None

    def _count(self, num_rows: int, moment: Moment) -> None:
        letters = {party: self.box.read(f"{VOTE}-{party}", moment) for party in sorted(self.graph)}
        votes = {party: letter["rows"] for party, letter in letters.items() if letter is not None}
        if len(votes) < len(letters):
            return
        agreed = decided(votes, self.graph, self.attack.vote)
        poisoned = to_poison(agreed, num_rows, self.attack.budget, generator(self.seed, "poison"))
        decision = {f"agreed-{party}": rows for party, rows in agreed.items()}
        decision |= {f"poisoned-{party}": rows for party, rows in poisoned.items()}
        self.box.leave(DECISION, decision, moment)
