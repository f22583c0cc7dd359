"""Who takes part in a round: the clients behind the nodes, drawn so that a seed fixes them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from logging import INFO, WARNING
from typing import Protocol

import torch
from flwr.common.logger import log
from flwr.serverapp import Grid

from thornbed.protocol.messages import Identity, RefusedReply, identify_message, read_identity
from thornbed.protocol.randomness import generator


@dataclass(frozen=True)
class Member:
    """A client that was drawn: its number (partition id), and the node that holds it now, None while it is away."""

    client: int
    node_id: int | None


class Cohort(Protocol):
    """Whatever can say who takes part in a round."""

    def draw(self, server_round: int, grid: Grid) -> Sequence[Member]:
        """Return the members of this round, in an order that does not change."""
        ...


class AnyNodes:
    """A share of the connected nodes, for Flower apps whose clients do not say who they are.

    Node ids come from the operating system's randomness, so two runs of one seed draw different clients; use
    `NumberedClients` where that matters. Waits until `min_nodes` are connected.
    """

    def __init__(self, fraction: float = 1.0, *, min_nodes: int = 2, seed: int = 0, wait_seconds: float = 600) -> None:
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction lies in (0, 1]: it is {fraction}")
        self.fraction, self.min_nodes, self.seed, self.wait_seconds = fraction, min_nodes, seed, wait_seconds

    def draw(self, server_round: int, grid: Grid) -> Sequence[Member]:
        """Return round(fraction * nodes) connected nodes, at least `min_nodes`, numbered by their node id."""
        nodes = _wait_for_nodes(grid, self.min_nodes, self.wait_seconds)
        count = min(len(nodes), max(round(self.fraction * len(nodes)), self.min_nodes, 1))
        order = torch.randperm(len(nodes), generator=generator(self.seed, "cohort", server_round))
        return [Member(nodes[index], nodes[index]) for index in sorted(order[:count].tolist())]


class NumberedClients:
    """A fixed number of clients, 0 to num_clients - 1, of which the same ones are drawn for a seed in every engine.

    Nodes are asked once who they are; whoever comes later is asked when it is first seen, and one that does not answer
    is asked again after 2, 4, 8, ... rounds, as each time costs the round `wait_seconds`. A drawn client whose node is
    away stays in the draw, so that its absence shows in the records and changes nobody else's turn.

    With `fixed=(clients, count)` every round has exactly `count` of these clients, and the others are drawn among the
    rest: attackers that take part continuously.

    The first round waits for all clients for up to `wait_seconds`, and goes on with `min_clients` of them (by default
    all); RuntimeError says what is missing where there are fewer.
    """

    def __init__(
        self,
        num_clients: int,
        clients_per_round: int,
        *,
        seed: int = 0,
        fixed: tuple[Set[int], int] | None = None,
        min_clients: int | None = None,
        wait_seconds: float = 60,
    ) -> None:
        if not 1 <= clients_per_round <= num_clients:
            raise ValueError(
                f"clients_per_round lies between 1 and num_clients: {clients_per_round} of {num_clients} clients"
            )
        self.min_clients = num_clients if min_clients is None else min_clients
        if not 1 <= self.min_clients <= num_clients:
            raise ValueError(f"min_clients lies between 1 and num_clients: {min_clients} of {num_clients} clients")
        if fixed is not None:
            of_them, of_others = fixed[1], clients_per_round - fixed[1]
            if not 0 <= of_them <= len(fixed[0]) or not 0 <= of_others <= num_clients - len(fixed[0]):
                raise ValueError(
                    f"a round of {clients_per_round} cannot have {of_them} of {len(fixed[0])} clients and {of_others} "
                    f"of the other {num_clients - len(fixed[0])}"
                )
        self.fixed = fixed
        self.num_clients, self.clients_per_round = num_clients, clients_per_round
        self.seed, self.wait_seconds = seed, wait_seconds
        self._identities: dict[int, Identity | None] = {}  # by node id; None: a node that is not one of ours
        self._silent: dict[int, tuple[int, int]] = {}  # by node id: times asked in vain, round to ask again
        self._begun = False

    @property
    def roles(self) -> Mapping[int, str]:
        """The role of every client that has identified itself, by client number."""
        known = (identity for identity in self._identities.values() if identity is not None)
        return dict(sorted((identity.partition_id, identity.role) for identity in known))

    def client_of(self, node_id: int) -> int | None:
        """Return the client that a node holds; None for one that has not identified itself."""
        identity = self._identities.get(node_id)
        return None if identity is None else identity.partition_id

    def draw(self, server_round: int, grid: Grid) -> Sequence[Member]:
        """Return the `clients_per_round` members of this round, by ascending client number."""
        nodes = self._nodes(server_round, grid)
        return [Member(client, nodes.get(client)) for client in self.drawn(server_round)]

    def drawn(self, server_round: int) -> list[int]:
        """Return the clients of a round, ascending, whoever of them is there then."""
        order = torch.randperm(self.num_clients, generator=generator(self.seed, "cohort", server_round)).tolist()
        if self.fixed is None:
            drawn = order[: self.clients_per_round]
        else:
            clients, count = self.fixed
            drawn = [client for client in order if client in clients][:count]
            drawn += [client for client in order if client not in clients][: self.clients_per_round - count]
        return sorted(drawn)

    def _nodes(self, server_round: int, grid: Grid) -> dict[int, int]:
        """Return the node that holds each client, after asking those not yet known."""
        first, self._begun = not self._begun, True
        if first:
            connected = _wait_for_nodes(grid, self.num_clients, self.wait_seconds, enough=self.min_clients)
        else:
            connected = sorted(grid.get_node_ids())
        unknown = [node for node in connected if node not in self._identities]
        if now := [node for node in unknown if self._silent.get(node, (0, 0))[1] <= server_round]:
            self._ask(grid, now, server_round)
        nodes: dict[int, int] = {}
        for node in (known for known in self._identities if known in set(connected)):
            identity = self._identities[node]
            if identity is None:
                continue
            # Later on the node that identified itself last holds the client: a SuperNode that was restarted is a new
            # node, while the old one stays listed for a while.
            if first and identity.partition_id in nodes:
                raise RuntimeError(
                    f"two nodes say they hold client {identity.partition_id}: give every SuperNode a partition-id of "
                    "its own in --node-config"
                )
            nodes[identity.partition_id] = node
        missing = sorted(set(range(self.num_clients)) - set(nodes))
        if first and len(nodes) < self.min_clients:
            if silent := [node for node in connected if node not in self._identities]:
                raise RuntimeError(
                    f"{len(silent)} of {len(connected)} connected nodes did not say within {self.wait_seconds:g} s "
                    "which client they hold: a busy machine needs more time (--node-timeout), else see their logs"
                )
            raise RuntimeError(
                f"{len(missing)} of {self.num_clients} clients are held by no node, client {missing[0]} first: start "
                f"SuperNodes with partition-id 0 to {self.num_clients - 1} in --node-config"
            )
        if first and missing:
            log(WARNING, "Clients %s are held by no node now; they may come later", missing)
        return nodes

    def _ask(self, grid: Grid, nodes: list[int], server_round: int) -> None:
        replies = grid.send_and_receive([identify_message(node) for node in nodes], timeout=self.wait_seconds)
        for reply in replies:
            node = reply.metadata.src_node_id
            if node not in nodes:  # the SuperLink, which says that some node went away
                continue
            try:
                identity = read_identity(reply)
                if not 0 <= identity.partition_id < self.num_clients:
                    raise RefusedReply(f"partition-id {identity.partition_id} is none of 0 to {self.num_clients - 1}")
                self._identities[node] = identity
            except RefusedReply as reason:
                log(WARNING, "Node %s takes no part: %s", node, reason)
                self._identities[node] = None
        for node in (node for node in nodes if node not in self._identities):
            times = self._silent.get(node, (0, 0))[0] + 1
            self._silent[node] = (times, server_round + 2**times)
            log(WARNING, "Node %s does not say which client it holds; it is asked again in %s rounds", node, 2**times)


def _wait_for_nodes(grid: Grid, needed: int, seconds: float, *, enough: int | None = None) -> list[int]:
    """Return the connected nodes, ascending, once there are as many as needed, or after the time where `enough` are."""
    deadline = time.monotonic() + seconds
    announced = False
    while len(nodes := sorted(grid.get_node_ids())) < needed:
        if time.monotonic() > deadline:
            if enough is not None and len(nodes) >= enough:
                break
            raise RuntimeError(
                f"{needed} clients are needed and {len(nodes)} nodes are connected after {seconds:g} s: start more "
                "SuperNodes, or in simulation ask for more with --federation-config 'num-supernodes=N'"
            )
        if not announced:
            log(INFO, "Waiting for %s nodes, %s are connected", needed, len(nodes))
            announced = True
        time.sleep(0.2)
    return nodes
