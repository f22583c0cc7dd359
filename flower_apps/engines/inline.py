"""The whole federation in this process: every message is answered at once, one client after the other.

Flower's strategies and client apps run unchanged on it: `InlineGrid` is a `flwr.serverapp.Grid` that calls the client
app itself. No network, no ray, no waiting, and the same bytes every time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from thornbed.flower_apps.client_app import app
from thornbed.flower_apps.engines import last_words
from thornbed.flower_apps.federation import OnRound, conduct
from thornbed.flower_apps.settings import Resolved
from thornbed.protocol.client_state import LivingContext
from thornbed.protocol.whole_files import no_room

RunConfig = Mapping[str, bool | int | float | str]
SERVER_NODE = 1
BETWEEN = "between two clients, in the server's own work"


class InlineGrid(Grid):
    """A grid whose nodes live in this process; node k + 2 holds partition k (node 1 is the server).

    Records are copied on their way in both directions, as a wire would do: what a client does to what it was given
    reaches nobody else. An exception of a client becomes an error reply, as it does in Flower's own engines. `note` is
    told whose turn it is before every message, and after it that it is nobody's.
    """

    def __init__(
        self,
        client_app: ClientApp,
        num_nodes: int,
        run_config: RunConfig,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, SERVER_NODE, 1
        self._client_app, self._note = client_app, note
        self._contexts = {
            partition + 2: LivingContext(
                run_id=1,
                node_id=partition + 2,
                node_config={"partition-id": partition, "num-partitions": num_nodes},
                state=RecordDict(),
                run_config=dict(run_config),
            )
            for partition in range(num_nodes)
        }
        self._replies: dict[str, Message] = {}
        self._count = 0

    def set_run(self, run: Run) -> None:
        """Do nothing: there is one run, and this grid belongs to it."""

    @property
    def run(self) -> Run:
        """Information about the one run there is."""
        return Run.create_empty(run_id=1)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Create a message to one of the nodes."""
        return Message(content=content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes, all of them always connected."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver the messages one by one, and keep the replies until they are pulled."""
        return [self._deliver(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to those messages, each once."""
        return [self._replies.pop(message_id) for message_id in message_ids if message_id in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Deliver the messages and return the replies; nothing is waited for, so nothing times out."""
        return self.pull_messages(self.push_messages(messages))

    def _deliver(self, message: Message) -> str:
        self._count += 1
        message_id = str(self._count)
        request = Message(
            content=_copied(message.content),
            dst_node_id=message.metadata.dst_node_id,
            message_type=message.metadata.message_type,
            group_id=message.metadata.group_id,
            ttl=message.metadata.ttl,
        )
        request.metadata.__dict__["_message_id"] = message_id
        context = self._contexts[message.metadata.dst_node_id]
        TaskIdentity.node_id = context.node_id
        partition = int(context.node_id) - 2
        self._note(last_words.about(partition, message.metadata.message_type, message.metadata.group_id))
        try:
            reply = self._client_app(request, context)
            if reply.has_content():
                reply.content = _copied(reply.content)
        except Exception as failure:  # as in Flower's engines: a client that fails answers with an error
            if no_room(failure):  # it is the run's disk too
                raise
            reason = f"{type(failure).__name__}: {failure}"
            logging.getLogger("flwr").debug("Client app failed", exc_info=failure)
            reply = Message(Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=reason), reply_to=request)
        finally:
            TaskIdentity.node_id = SERVER_NODE
            self._note(BETWEEN)
        self._replies[message_id] = reply
        return message_id


def inline(settings: Resolved, on_round: OnRound) -> dict[str, Any]:
    """Run a federation in this process; its folder has a note of whose turn it is, which stays where it dies."""
    note = last_words.Note(Path(settings.output).expanduser()) if settings.output else None
    write = note.write if note is not None else lambda text: None
    try:
        with _quiet():
            return conduct(settings, InlineGrid(app, settings.num_clients, settings.to_run_config(), write), on_round)
    finally:
        if note is not None:
            note.end()


def _copied(content: RecordDict) -> RecordDict:
    """Return records of their own; the arrays' bytes are immutable and shared."""
    copies: dict[str, ArrayRecord | MetricRecord | ConfigRecord] = {}
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            copies[name] = ArrayRecord(dict(record))
        elif isinstance(record, MetricRecord):
            copies[name] = MetricRecord(_values(record))
        else:
            copies[name] = ConfigRecord(_values(record))
    return RecordDict(copies)


def _values(record: MetricRecord | ConfigRecord) -> dict[str, Any]:
    """Return what is in it; a record holds scalars and lists of scalars, so that copies of the lists are enough."""
    return {name: list(value) if isinstance(value, list) else value for name, value in record.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Flower's several lines a round out of the terminal; warnings stay."""
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
