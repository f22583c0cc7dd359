"""Flower's client app: every message goes to what the run's scheme answers it with."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from thornbed.flower_apps.resolving import resolve
from thornbed.flower_apps.run.client import Client
from thornbed.flower_apps.run.run import Run
from thornbed.flower_apps.schemes import scheme as schemes
from thornbed.flower_apps.settings import BadSettings, Resolved, settings_from
from thornbed.protocol.actions import IDENTIFY
from thornbed.protocol.messages import Identity, identify_reply
from thornbed.protocol.played import take_played

app = ClientApp()


def identify(run: Run, client: Client, message: Message) -> Message:
    """Say which client this node holds, its role, and why it cannot attack where it should and cannot."""
    scheme = schemes.scheme_of(run.settings)
    try:
        return identify_reply(message, Identity(client.number, scheme.role(run, client)))
    except BadSettings as problem:
        return identify_reply(message, Identity(client.number, "malicious", " ".join(str(problem).split())))


def answer(message: Message, context: Context) -> Message:
    """Return the reply of the scheme's handler to a message."""
    run, played = schemes.built(_settings(context)), take_played(message)
    client, action = Client.of(run, context, played), message.metadata.message_type
    if action == IDENTIFY:
        return identify(run, client, message)
    handlers = schemes.scheme_of(run.settings).handlers
    if action not in handlers:
        raise ValueError(
            f"--strategy {run.settings.strategy} has no answer to {action}; it answers {', '.join(handlers)}"
        )
    return handlers[action](run, client, message)


def _settings(context: Context) -> Resolved:
    own: dict[str, Any] = {
        key: str(context.node_config[key]) for key in ("data-dir", "device") if key in context.node_config
    }
    return _resolved(tuple(sorted({**context.run_config, **own}.items())))


@lru_cache(maxsize=64)
def _resolved(values: tuple[tuple[str, Any], ...]) -> Resolved:
    return resolve(settings_from(dict(values)))


def _register() -> None:
    """Have Flower bring every action that a scheme answers; the run's own scheme is the one that does."""
    actions = {action for name in schemes.available() for action in schemes.load(name).handlers}
    for action in sorted({IDENTIFY, *actions}):
        kind, _, name = action.partition(".")
        getattr(app, kind)(name or "default")(answer)


_register()
