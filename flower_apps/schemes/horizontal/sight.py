"""What an attacker of a horizontal run finds out in a round beside its own update, when its attack asks for it.

In one process, and in Flower's virtual client engine, the attackers are one: who comes first in a round finds what all
of them would honestly have sent, and leaves it in the channel for the others. On a machine of its own an attacker
leaves its own honest update there and waits a while for those of its accomplices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from logging import WARNING

import torch
from flwr.app import ArrayRecord
from flwr.common.logger import log
from torch import Tensor

from thornbed.attacks import Knowledge
from thornbed.attacks.update import Sight
from thornbed.clients.channel import Channel
from thornbed.clients.role import Role
from thornbed.flower_apps.run.client import Client, accomplices, channel_of, is_malicious
from thornbed.flower_apps.schemes.horizontal.local_work import honest_update, train_network
from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun
from thornbed.protocol.vector import Layout, to_arrays, to_tensors
from thornbed.tasks import Samples

ATTACKERS, HONEST, MODEL, UPDATE = "attackers", "honest", "model", "update"


@dataclass(frozen=True, eq=False)
class Eyes:
    """One client's eyes in a round.

    Attributes
    ----------
    own : the client's samples before anything is poisoned.
    who : whose randomness it uses.
    arrays : the model that the server sent.
    """

    run: HorizontalRun
    client: Client
    role: Role
    own: Samples
    who: int | str
    server_round: int
    arrays: ArrayRecord
    layout: Layout
    start: Tensor

    def peers(self, update: Tensor) -> Tensor:
        """Return the client's own update, and below it what its accomplices would honestly send: (k, d).

        Accomplices are the other attackers that were drawn in this round, ascending. Clients that act as one all see
        the same rows, which are those of all of them.
        """
        if not self.role.sees_accomplices:
            return update[None]
        others = self._waited_for() if self.run.deployed else self._found()
        return torch.cat([update[None], *(row[None] for row in others)])

    def sight(self) -> Sight:
        """Return what the client finds out when it asks."""
        if not is_malicious(self.run.settings, self.client.number, self.client.node_config):
            return Sight(benign=self._benign, last_step=self._last_step)
        attack = self.run.attack_on(self.client.node_config)
        declared = frozenset[Knowledge]() if attack is None else attack.needs
        sight = Sight(benign=self._benign)
        if Knowledge.EARLIER_MODELS in declared:
            sight = replace(sight, last_step=self._last_step)
        if Knowledge.HONEST_UPDATES in declared:
            sight = replace(sight, honest=self._honest)
        return sight

    @property
    def _channel(self) -> Channel:
        return channel_of(self.run.settings, self.client.node_config, self.client.run_id)

    @property
    def _drawn(self) -> list[int]:
        """The clients of this round, whoever of them is there."""
        return self.run.cohort().drawn(self.server_round)

    def _benign(self) -> Tensor:
        """Train honestly on the client's own clean data."""
        network = self.run.network
        network.load_state_dict(to_tensors(self.arrays))
        train_network(self.run, self.own, self.who, self.server_round)
        return self.layout.flatten(to_arrays(network.state_dict())).sub_(self.start)

    def _last_step(self) -> Tensor | None:
        """Return how far the server's model moved since attackers last saw it, and leave it for the next round."""
        channel, name = self._channel, MODEL
        earlier = channel.before_round(name, self.server_round)
        if channel.of_round(name, self.server_round) is None:
            channel.leave_in_round(name, self.server_round, {MODEL: self.start})
        return None if earlier is None else self.start - earlier[MODEL]

    def _honest(self) -> Tensor:
        return self._updates(HONEST, [each for each in self._drawn if each not in self.run.settings.malicious])

    def _found(self) -> list[Tensor]:
        """Return the rows of the accomplices, which whoever of them comes first finds for all."""
        attackers = [each for each in self._drawn if each in self.run.settings.malicious]
        rows = self._updates(ATTACKERS, attackers)
        mine = self.client.number if self.role.group is None else None
        return [row for attacker, row in zip(attackers, rows, strict=True) if attacker != mine]

    def _updates(self, name: str, clients: Sequence[int]) -> Tensor:
        def find() -> dict[str, Tensor]:
            rows = [honest_update(self.run, each, self.server_round, self.arrays, self.layout) for each in clients]
            return {UPDATE: torch.stack(rows) if rows else torch.empty(0, self.layout.dimension)}

        return self._channel.once_in_round(name, self.server_round, find)[UPDATE]

    def _waited_for(self) -> list[Tensor]:
        """Leave the client's own honest update, and return those of its accomplices that come in time."""
        channel, number = self._channel, self.client.number
        mine = honest_update(self.run, number, self.server_round, self.arrays, self.layout)
        channel.leave_in_round(f"{UPDATE}-{number}", self.server_round, {UPDATE: mine})
        settings = self.run.settings
        others = [each for each in accomplices(settings, number, self.client.node_config) if each in self._drawn]
        names = [f"{UPDATE}-{each}" for each in others if each != number or self.role.group is not None]
        came = channel.wait_for(names, self.server_round, settings.channel_timeout)
        if missing := [name for name in names if name not in came]:
            log(WARNING, "Client %s attacks without %s of its accomplices: no letter in time", number, len(missing))
        rows = [came[name].get(UPDATE) for name in names if name in came]
        return [row for row in rows if row is not None and row.shape == mine.shape and bool(row.isfinite().all())]
