"""Which client a virtual node plays: in a simulation the message says it, since the nodes hold nothing of their own."""

from __future__ import annotations

from flwr.app import ConfigRecord, Message, RecordDict

PLAYED = "thornbed-played"  # the record's name, and a name that no scheme's own records have
CLIENT = "client"


def play(message: Message, client: int) -> None:
    """Have a message say which client its node plays; records that it shares with other messages do not change."""
    message.content = RecordDict({**message.content, PLAYED: ConfigRecord({CLIENT: client})})


def take_played(message: Message) -> int | None:
    """Return the client that a message names, and leave the message as its scheme made it; None where it names none."""
    if not message.has_content() or PLAYED not in message.content:
        return None
    record = message.content[PLAYED]
    message.content = RecordDict({name: each for name, each in message.content.items() if name != PLAYED})
    client = record.get(CLIENT) if isinstance(record, ConfigRecord) else None
    if not isinstance(client, int) or isinstance(client, bool) or client < 0:
        raise ValueError(f"the message names no client to play: {client!r}")
    return client
