"""The nodes of a simulation, each of which plays the client that it is told."""

from __future__ import annotations

import re
from collections.abc import Iterable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from thornbed.protocol.played import play

DIED = re.compile(r"ray\.exceptions\.(ActorDied|ActorUnavailable|RayActor|WorkerCrashed|OutOfMemory|NodeDied)Error")

WHAT_TO_TRY = (
    "native code crashed, it was killed, or memory ran out; what was finished is kept; go on with --resume, and where "
    "it dies again try another --model or a smaller --batch-size in a new run"
)


class ClientsDied(RuntimeError):
    """A process of the simulation died with a client's work; the text says whose, and what to try."""


class VirtualNodes(Grid):
    """Another grid, on which every message to a node names the client that the node plays, the same all run long.

    Nodes of Flower's virtual client engine are alike: none holds data, and what a client keeps between two messages
    stays with its node. So nobody has to ask a thousand of them which client they are, of whom ten take part. Client
    apps that do not read it are told in vain; nodes of a deployment hold their own data, and are asked.

    Replies raise ClientsDied where a process of ray's died with a client's work. Flower would hand it more work, which
    fails, so that from then on other clients are missing from rounds, each time others.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._clients: dict[int, int] = {}  # by node id

    def client_of(self, node_id: int) -> int:
        """Return the client that a node plays; raises KeyError for a node that was never among the connected ones."""
        return self._clients[node_id]

    def set_run(self, run: Run) -> None:
        """Tell the grid which run it serves."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run that the grid serves."""
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Create a message to one of the nodes."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the connected nodes; whoever is new plays the next client."""
        nodes = list(self._grid.get_node_ids())
        for node in sorted(set(nodes) - self._clients.keys()):
            self._clients[node] = len(self._clients)
        return nodes

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send the messages, each of which names a client now."""
        return self._grid.push_messages(self._told(messages))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there; raises ClientsDied."""
        return self._alive(self._grid.pull_messages(message_ids))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send the messages, each of which names a client now; return the replies in time, or raise ClientsDied."""
        return self._alive(self._grid.send_and_receive(self._told(messages), timeout=timeout))

    def _told(self, messages: Iterable[Message]) -> list[Message]:
        told = list(messages)
        for message in told:
            play(message, self._clients[message.metadata.dst_node_id])
        return told

    def _alive(self, replies: Iterable[Message]) -> list[Message]:
        replies = list(replies)
        died = [reply for reply in replies if reply.has_error() and DIED.search(reply.error.reason or "")]
        clients = sorted(self._clients[reply.metadata.src_node_id] for reply in died)
        if clients:
            whose = "client" if len(clients) == 1 else "one of the clients"
            raise ClientsDied(f"the process that trained {whose} {', '.join(map(str, clients))} died: {WHAT_TO_TRY}")
        return replies
