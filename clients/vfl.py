"""The embedding client of vertical learning, and one that attacks: what each does with a message.

Paper: S. Lee, W. Fang, A. B. Das, S. Hosseinalipour, D. J. Love, C. G. Brinton, "Cooperative Decentralized Backdoor
Attacks on Vertical Federated Learning", 2025, Algorithm 2. Nothing here knows Flower.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from thornbed.attacks.vertical.party import AttackingParty
from thornbed.clients.channel import Moment
from thornbed.clients.collusion import Collusion
from thornbed.protocol.split import EMBEDDINGS, PROBE, REPLACED, TRIGGERED, TRUE
from thornbed.tasks.split.parties import HonestParty, Party
from thornbed.tasks.split.party_work import PartyWork
from thornbed.tasks.split.records import Records

LAST, AGREED, MEMORY = "last", "agreed", "memory."


@dataclass(frozen=True, eq=False)
class EvaluationRows:
    """Which samples are to be embedded after a round, by id: see `protocol.split.EvaluationRequest`."""

    rows: Tensor
    attacked: Tensor
    probe: Tensor


class EmbeddingClient:
    """An honest client: training samples and test samples, each by id, and a bottom model."""

    name = "benign"

    def __init__(self, train: Records, test: Records, work: PartyWork) -> None:
        self.train, self.test, self.work = train, test, work
        self.party: Party = HonestParty(train, work)

    def greet(self, moment: Moment) -> None:
        """Do what is to be done before the first step: nothing."""

    def step(self, gradient: Tensor | None, ids: Tensor, moment: Moment, source: torch.Generator) -> Tensor:
        """Learn from the gradient (b', d) of the last embedding and return that of the training samples, (b, d)."""
        embeddings = self.party.step(gradient, ids)
        assert embeddings is not None  # as it was asked for some
        return embeddings

    def evaluate(self, gradient: Tensor | None, asked: EvaluationRows, source: torch.Generator) -> dict[str, Tensor]:
        """Learn from the last gradient of a round and return the embeddings of test samples, and of those probed."""
        self.party.step(gradient, None)
        found = {EMBEDDINGS: self.work.embed(self.test.take(asked.rows))}
        if len(asked.probe):
            found[PROBE] = self.work.embed(self.train.take(asked.probe))
        return found

    def state(self) -> dict[str, Tensor]:
        """Return all that it has to keep between two messages, as plain tensors by name."""
        return self.work.state()

    def restore(self, state: Mapping[str, Tensor], moment: Moment) -> None:
        """Go on from a `state`; raises ValueError where it is one of another network."""
        self.work.restore(state)


class BackdoorClient(EmbeddingClient):
    """A client that attacks together with others; as long as it does not know enough it does what it is asked."""

    name = "malicious"

    def __init__(self, train: Records, test: Records, work: PartyWork, collusion: Collusion) -> None:
        super().__init__(train, test, work)
        self.collusion = collusion
        self.attacking: AttackingParty | None = None
        self.agreed = False

    def greet(self, moment: Moment) -> None:
        """Leave its features for its neighbours, out of the server's sight."""
        self.collusion.share(self.train.in_order, moment)

    def step(self, gradient: Tensor | None, ids: Tensor, moment: Moment, source: torch.Generator) -> Tensor:
        """Think, vote and agree as far as others are; then change what is embedded and what is sent."""
        if self.attacking is None:
            self.greet(moment)
            self._begin(None, moment, source)
        if self.attacking is not None:
            self.attacking.generator = source
            if not self.agreed:
                self.agreed = self.collusion.settle(self.attacking.adversary, moment, source)
        return super().step(gradient, ids, moment, source)

    def evaluate(self, gradient: Tensor | None, asked: EvaluationRows, source: torch.Generator) -> dict[str, Tensor]:
        """Add what the testbed measures: attacked samples, replaced ones, and what the probed ones are in truth."""
        if self.attacking is not None:
            self.attacking.generator = source
        found = super().evaluate(gradient, asked, source)
        if self.attacking is None or not len(asked.probe):
            return found
        member, x = self.attacking.adversary, self.test.take(asked.attacked)
        found[TRIGGERED] = member.triggers_embeddings(self.work.embed(member.triggers(x, source)))
        found[REPLACED] = self.work.embed(member.replaces(x, source))
        found[TRUE] = found[PROBE]
        if self.agreed:
            # On a copy: what an adversary remembers of a step must be of one that the server learns from.
            copy, rows = self.collusion.attack.recalled(member.view, member.memory), self.train.ranks(asked.probe)
            sent = self.work.embed(copy.embeds(rows, self.train.take(asked.probe), source))
            found[PROBE] = copy.sends(rows, sent, source)
        return found

    def state(self) -> dict[str, Tensor]:
        """Return all that it has to keep between two messages, with its adversary's memory."""
        found = super().state()
        if self.attacking is not None:
            found |= {MEMORY + name: tensor for name, tensor in self.attacking.adversary.memory.items()}
            found[AGREED] = torch.tensor(self.agreed)
            if self.attacking.last is not None:
                found[LAST] = self.attacking.last
        return found

    def restore(self, state: Mapping[str, Tensor], moment: Moment) -> None:
        """See `EmbeddingClient`; its neighbours' features are read again."""
        super().restore(state, moment)
        if AGREED in state:
            memory = {name.removeprefix(MEMORY): each for name, each in state.items() if name.startswith(MEMORY)}
            self._begin(memory, moment, torch.Generator())
            if self.attacking is None:
                raise ValueError("the features that neighbours of this adversary left are gone")
            self.attacking.last, self.agreed = state.get(LAST), bool(state[AGREED])

    def _begin(self, memory: Mapping[str, Tensor] | None, moment: Moment, source: torch.Generator) -> None:
        view = self.collusion.view(self.train.in_order, moment)
        if view is None:
            return
        member = self.collusion.begins(view) if memory is None else self.collusion.attack.recalled(view, memory)
        self.party = self.attacking = AttackingParty(self.train, self.work, member, source)
