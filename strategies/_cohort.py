"""Who takes part in a round: the clients behind the nodes, drawn so that a seed fixes them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from logging import INFO, WARNING
from typing import Protocol

import torch
from flwr.common.logger import log
from flwr.serverapp import Grid

from thornbed.protocol.messages import Identity, RefusedReply, identify_message, read_identity
from thornbed.protocol.randomness import generator
from thornbed.strategies._virtual_nodes import VirtualNodes

PLAYED = "played"  # the role of a client in a simulation, whose settings say who attacks
SILENT = "it does not say which client it holds"


class CannotBegin(RuntimeError):
    """The clients that are there are not those that a run begins with; the text says what would be right."""


@dataclass(frozen=True)
class Member:
    """A client that was drawn: its number (partition id), and the node that holds it now, None while it is away."""

    client: int
    node_id: int | None


@dataclass(frozen=True)
class Replacement:
    """A client whose node was gone, and that another node holds since."""

    client: int
    node: int
    by: int


class Cohort(Protocol):
    """Whatever can say who takes part in a round."""

    def draw(self, server_round: int, grid: Grid) -> Sequence[Member]:
        """Return the members of this round, in an order that does not change."""
        ...


class AnyNodes:
    """A share of the connected nodes, for Flower apps whose clients do not say who they are.

    Node ids come from the operating system's randomness, so two runs of one seed draw different clients; use
    `NumberedClients` where that matters. Waits until `min_available` are connected, and no fewer than `min_nodes`.
    Cohorts of two purposes and one seed draw independently.
    """

    def __init__(
        self,
        fraction: float = 1.0,
        *,
        min_nodes: int = 2,
        min_available: int = 0,
        seed: int = 0,
        wait_seconds: float = 600,
        purpose: str = "cohort",
    ) -> None:
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction lies in (0, 1]: it is {fraction}")
        self.fraction, self.min_nodes, self.seed, self.wait_seconds = fraction, min_nodes, seed, wait_seconds
        self.min_available, self.purpose = max(min_available, min_nodes, 1), purpose

    def draw(self, server_round: int, grid: Grid) -> Sequence[Member]:
        """Return int(fraction * nodes) connected nodes, at least `min_nodes`, numbered by their node id.

        That is how Flower's strategies count: 0.5 of 5 are 2.
        """
        nodes = _wait_for_nodes(grid, self.min_available, self.wait_seconds)
        count = min(len(nodes), max(int(self.fraction * len(nodes)), self.min_nodes, 1))
        order = torch.randperm(len(nodes), generator=generator(self.seed, self.purpose, server_round))
        return [Member(nodes[index], nodes[index]) for index in sorted(order[:count].tolist())]


class NumberedClients:
    """A fixed number of clients, 0 to num_clients - 1, of which the same ones are drawn for a seed in every engine.

    Nodes are asked once who they are; whoever comes later is asked when it is first seen. One that does not answer, or
    whose answer cannot be used, is asked again after 2, 4, 8, ... rounds, as each time can cost the round
    `wait_seconds`. Of `VirtualNodes` none is asked, since they play what they are told. A drawn client whose node is
    away stays in the draw, so that its absence shows in the records and changes nobody else's turn.

    Within a run a client stays with the node that claimed it first, for as long as that node is connected. Another node
    that claims it is refused, and asked again in the first round without the holder; a node that claims it then takes
    it over, which `replaced` tells, and the earlier holder is a newcomer like any other. Nothing proves a claim: a
    client that no connected node holds goes to whoever claims it.

    With `fixed=(clients, count)` every round has exactly `count` of these clients, and the others are drawn among the
    rest: attackers that take part continuously.

    The first round waits for all clients for up to `wait_seconds`, and goes on with `min_clients` of them (by default
    all). CannotBegin, a RuntimeError, says what is missing where there are fewer, who holds a client twice, and which
    attacker says that it cannot attack (later on, such a one is refused and asked again).
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
        self._identities: dict[int, Identity] = {}  # by node id, of the nodes that hold a client: one node a client
        self._contested: dict[int, int] = {}  # by node id: the client that it claims while another node holds it
        self._unknown: dict[int, tuple[int, int]] = {}  # by node id: times asked in vain, round to ask again
        self._replaced: tuple[Replacement, ...] = ()
        self._begun = False

    @property
    def roles(self) -> Mapping[int, str]:
        """The role of every client that is known, by client number: what its node said, `played` where it was told."""
        return dict(sorted((identity.partition_id, identity.role) for identity in self._identities.values()))

    @property
    def replaced(self) -> Sequence[Replacement]:
        """The clients that another node took over at the latest draw, as the node that held them was gone."""
        return sorted(self._replaced, key=lambda replacement: replacement.client)

    def client_of(self, node_id: int) -> int | None:
        """Return the client that a node holds; None for one that holds none."""
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
        here = set(connected)
        refused = self._identify(here, server_round, grid, first=first)
        nodes = {identity.partition_id: node for node, identity in self._identities.items() if node in here}
        missing = sorted(set(range(self.num_clients)) - set(nodes))
        if first and len(nodes) < self.min_clients:
            if silent := list(refused.values()).count(SILENT):
                raise CannotBegin(
                    f"{silent} of {len(connected)} connected nodes did not say within {self.wait_seconds:g} s "
                    "which client they hold: a busy machine needs more time (--node-timeout), else see their logs"
                )
            why = next((f" (node {node} is refused: {reason})" for node, reason in refused.items()), "")
            raise CannotBegin(
                f"{len(missing)} of {self.num_clients} clients are held by no node, client {missing[0]} first{why}: "
                f"start SuperNodes with partition-id 0 to {self.num_clients - 1} in --node-config"
            )
        if first and missing:
            log(WARNING, "Clients %s are held by no node now; they may come later", missing)
        return nodes

    def _identify(self, here: Set[int], server_round: int, grid: Grid, *, first: bool) -> dict[int, str]:
        """Ask the connected nodes whose turn it is who they are; return why those that take no part for now do not."""
        self._replaced = ()
        self._contested = {node: client for node, client in self._contested.items() if node in here}
        holders = {identity.partition_id: node for node, identity in self._identities.items()}
        turn = self._turn(here, holders, server_round)
        answers = self._answers(grid, turn) if turn else {}
        if first:
            _check_claims([answer for answer in answers.values() if isinstance(answer, Identity)])
        refused: dict[int, str] = {}
        for node in turn:  # not in the order of arrival, which would let the fastest of two take a client
            answer = answers.get(node, SILENT)
            self._contested.pop(node, None)
            if isinstance(answer, Identity) and answer.problem:
                answer = _cannot_attack(answer)
            if isinstance(answer, str):
                refused[node] = answer
                self._ask_later(node, answer, server_round)
                continue
            client = answer.partition_id
            if (holder := holders.get(client)) in here:
                refused[node] = f"node {holder} holds client {client}"
                self._contested[node] = client
                said = "Node %s takes no part for now: it says it holds client %s, which node %s holds; it is asked "
                log(WARNING, said + "again when that node is gone", node, client, holder)
                continue
            if holder is not None:
                del self._identities[holder]
                self._replaced += (Replacement(client, holder, node),)
                log(WARNING, "Node %s holds client %s now: node %s, which held it, is gone", node, client, holder)
            self._identities[node], holders[client] = answer, node
        return refused

    def _ask_later(self, node: int, reason: str, server_round: int) -> None:
        times = self._unknown.get(node, (0, 0))[0] + 1
        self._unknown[node] = (times, server_round + 2**times)
        said = "Node %s takes no part for now: %s; it is asked again in %s rounds"
        log(WARNING, said, node, reason, 2**times)

    def _turn(self, here: Set[int], holders: Mapping[int, int], server_round: int) -> list[int]:
        """Return the nodes to ask now: those whose claim is open again, in the order of claiming, then the others."""
        # An honest SuperNode that was restarted is a new node, and the old one stays listed for a while: the new one
        # has its turn in the first round without the old one, not after 2, 4, 8, ... rounds.
        again = [node for node, client in self._contested.items() if holders.get(client) not in here]
        others = sorted(here - self._identities.keys() - self._contested.keys())
        return again + [node for node in others if self._unknown.get(node, (0, 0))[1] <= server_round]

    def _answers(self, grid: Grid, nodes: Sequence[int]) -> dict[int, Identity | str]:
        """Return who nodes say they are, or why that cannot be used; nothing of those that say nothing in time."""
        answers: dict[int, Identity | str] = {}
        if isinstance(grid, VirtualNodes):  # what they are told is what they are
            return {node: self._within(Identity(grid.client_of(node), PLAYED)) for node in nodes}
        for reply in grid.send_and_receive([identify_message(node) for node in nodes], timeout=self.wait_seconds):
            node = reply.metadata.src_node_id
            if node not in nodes:  # the SuperLink, which says that some node went away
                continue
            try:
                answers[node] = self._within(read_identity(reply))
            except RefusedReply as reason:
                answers[node] = str(reason)
        return answers

    def _within(self, identity: Identity) -> Identity | str:
        """Return an identity, or why there is no such client."""
        if 0 <= identity.partition_id < self.num_clients:
            return identity
        return f"partition-id {identity.partition_id} is none of 0 to {self.num_clients - 1}"


def _check_claims(identities: Sequence[Identity]) -> None:
    """Refuse to begin with an attacker that cannot attack, or with a client that two nodes claim."""
    claims = sorted(identities, key=lambda identity: identity.partition_id)
    for identity in claims:
        if identity.problem:
            raise CannotBegin(_cannot_attack(identity))
    for one, other in pairwise(claims):
        if one.partition_id == other.partition_id:
            raise CannotBegin(
                f"two nodes say they hold client {one.partition_id}: give every SuperNode a partition-id of its own "
                "in --node-config"
            )


def _cannot_attack(identity: Identity) -> str:
    return f"client {identity.partition_id} cannot attack: {identity.problem}"


def _wait_for_nodes(grid: Grid, needed: int, seconds: float, *, enough: int | None = None) -> list[int]:
    """Return the connected nodes, ascending, once there are as many as needed, or after the time where `enough` are."""
    deadline, announced = time.monotonic() + seconds, False
    while len(nodes := sorted(grid.get_node_ids())) < needed:
        if time.monotonic() > deadline:
            if enough is not None and len(nodes) >= enough:
                break
            raise CannotBegin(
                f"{needed} clients are needed and {len(nodes)} nodes are connected after {seconds:g} s: start more "
                "SuperNodes, or in simulation ask for more with --federation-config 'num-supernodes=N'"
            )
        if not announced:
            log(INFO, "Waiting for %s nodes, %s are connected", needed, len(nodes))
            announced = True
        time.sleep(0.2)
    return nodes
