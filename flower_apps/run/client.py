"""One client as its handlers see it: its number, what its node says of itself, what it keeps, whom it colludes with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Context

from thornbed.clients.channel import Channel
from thornbed.flower_apps.records.folder import settings_digest
from thornbed.flower_apps.run.run import Run
from thornbed.flower_apps.settings import NONE, BadSettings, Resolved
from thornbed.flower_apps.settings.tuned import with_tuned
from thornbed.protocol.client_state import ClientState, memory_of

KEPT = "clients"  # below a run's output, what its clients keep after rounds
ATTACKERS = "attackers"  # and what attackers leave for each other


@dataclass(frozen=True, eq=False)
class Client:
    """The client that a message was sent to.

    Attributes
    ----------
    number : 0 to num_clients - 1, its partition-id.
    node_config : what its node was started with; in deployment its role, its attack and its folders are there.
    state : what it keeps between messages, and after rounds.
    run_id : Flower's number of the run.
    """

    number: int
    node_config: Mapping[str, Any]
    state: ClientState
    run_id: int

    @classmethod
    def of(cls, run: Run, context: Context, played: int | None = None) -> Client:
        """Return the client of a node; raises ValueError where the node does not say which client it holds.

        played : the client that the message says the node plays, which means nothing in deployment.
        """
        number = context.node_config.get("partition-id") if played is None or run.deployed else played
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise ValueError(
                "this node has no partition-id; give it one in --node-config, such as 'partition-id=0'"
                if number is None
                else "partition-id in --node-config is a whole number from 0, such as 'partition-id=0': this node's is "
                f"{number!r}"
            )
        folder = state_folder(run.settings, context.node_config)
        named = name_of_run(run.settings, context.run_id) if run.deployed else settings_digest(run.settings)
        state = ClientState(number, memory_of(context), folder, named)
        return cls(number, context.node_config, state, context.run_id)


def name_of_run(settings: Resolved, run_id: int) -> str:
    """Return what tells a run from others on nodes that outlive it: its output, which one that is resumed keeps.

    Without an output it is Flower's number of the run.
    """
    return hashlib.sha256((settings.output or f"run {run_id}").encode()).hexdigest()[:16]


def state_folder(settings: Resolved, node_config: Mapping[str, Any]) -> Path | None:
    """Return where clients keep their tensors after a round; in deployment `state` in `--node-config`, or nowhere."""
    if settings.engine != "deployment":
        return Path(settings.output).expanduser() / KEPT if settings.output else None
    text = str(node_config.get("state", ""))
    return Path(text).expanduser() if text else None


def says_malicious(node_config: Mapping[str, Any]) -> bool:
    """Tell whether a node of a deployment says of itself that it attacks."""
    wanted = str(node_config.get("role", "benign"))
    if wanted not in ("benign", "malicious"):
        raise BadSettings(f"role in --node-config is benign or malicious, not {wanted!r}")
    return wanted == "malicious"


def is_malicious(settings: Resolved, client: int, node_config: Mapping[str, Any]) -> bool:
    """Tell whether a client attacks: in deployment its node says it, elsewhere the settings do."""
    return says_malicious(node_config) if settings.engine == "deployment" else client in settings.malicious


def attack_text(settings: Resolved, node_config: Mapping[str, Any]) -> str:
    """Return the spec of the attack of a malicious client: the run's, or in deployment one that its node names.

    Raises BadSettings where there is none: a malicious client never becomes honest in silence.
    """
    text = settings.attack
    if settings.engine == "deployment":
        text = with_tuned(settings.task, str(node_config.get("attack", text)))
    if text == NONE:
        raise BadSettings("this node is malicious and there is no attack: name one in --node-config or in the run")
    return text


def accomplices(settings: Resolved, client: int, node_config: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the clients of the group that a malicious client belongs to, ascending.

    In deployment they are those of `accomplices` in `--node-config`, such as "3,7", and the client itself.
    """
    if settings.engine != "deployment":
        return tuple(sorted(settings.malicious))
    return tuple(
        sorted({client, *clients_in(node_config, "accomplices", "the clients that attack together", settings)})
    )


def clients_in(node_config: Mapping[str, Any], key: str, meaning: str, settings: Resolved) -> tuple[int, ...]:
    """Return the numbers of clients that a key of `--node-config` names, such as "3,7"; raises BadSettings."""
    words = [word.strip() for word in str(node_config.get(key, "")).split(",") if word.strip()]
    if not words or not all(word.isdecimal() and int(word) < settings.num_clients for word in words):
        raise BadSettings(f'this attack needs {key}="3,7" in --node-config, {meaning}, below {settings.num_clients}')
    return tuple(sorted({int(word) for word in words}))


def channel_of(settings: Resolved, node_config: Mapping[str, Any], run_id: int) -> Channel:
    """Return the channel in which attackers leave what they saw in this run; raises BadSettings without a folder.

    In deployment its folder is one below `channel` in `--node-config`: nodes outlive a run, and a letter of another
    run is none of this.
    """
    if settings.engine != "deployment":
        if not settings.output:
            raise BadSettings("attackers that share what they saw need --output, below which they keep it")
        return Channel(Path(settings.output).expanduser() / ATTACKERS)
    if not (folder := str(node_config.get("channel", ""))):
        raise BadSettings('attackers that share what they saw need channel="FOLDER" in --node-config')
    return Channel(Path(folder).expanduser() / name_of_run(settings, run_id))
