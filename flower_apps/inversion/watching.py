"""A curious server at work: which replies it reads, and what it keeps of them until the last round is over.

It changes nothing and slows no round by more than writing a file takes; what it makes of the files comes afterwards
(flower_apps/inversion/inverting.py).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from logging import WARNING
from pathlib import Path
from typing import cast

from flwr.common.logger import log
from flwr.serverapp.strategy import Strategy

from thornbed.clients.local_training import num_steps, step_sizes, uses_running_statistics
from thornbed.flower_apps.schemes.horizontal.local_work import used_samples
from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun
from thornbed.flower_apps.settings import BadSettings, Resolved, plugins
from thornbed.protocol.recordings import LARGEST, Facts, recordings_in, save_originals, save_update
from thornbed.strategies import Curious, NumberedClients, Sighting

FOLDER = "recordings"  # below a run's output, while nobody names another
NAME = re.compile(r"round-\d+-client-\d+\.safetensors")


def recordings_folder(settings: Resolved) -> Path:
    """Return where a run's recordings lie."""
    return Path(settings.record or Path(settings.output) / FOLDER).expanduser()


def recordings_of(settings: Resolved) -> list[Path]:
    """Return the recordings that a run has made, by round and client."""
    return [path for path in recordings_in(recordings_folder(settings)) if NAME.fullmatch(path.name)]


def recording_of(settings: Resolved, server_round: int, client: int) -> Path:
    """Return where a run records the update of a client in a round."""
    return recordings_folder(settings) / f"round-{server_round:04}-client-{client:04}.safetensors"


def check_recordings(settings: Resolved) -> None:
    """Refuse a folder that holds recordings of something else; raises BadSettings."""
    if settings.record and not settings.resume and recordings_in(recordings_folder(settings)):
        raise BadSettings(f"--record {settings.record} holds recordings already; name another folder")


def watched(inner: Strategy, run: HorizontalRun, cohort: NumberedClients) -> Strategy:
    """Return a strategy that also records the replies that the settings choose, and otherwise is `inner`."""
    watch = _Watch(run, cohort)
    return Curious(inner, watch.keep, choose=watch.choose)


class _Watch:
    def __init__(self, run: HorizontalRun, cohort: NumberedClients) -> None:
        self.run, self.settings, self.cohort = run, run.settings, cohort

    def choose(self, server_round: int, nodes: Sequence[int]) -> Collection[int]:
        """Return the nodes whose replies are read in a round."""
        if server_round not in self.settings.rounds_read:
            return ()
        client_of = {node: client for node in nodes if (client := self.cohort.client_of(node)) is not None}
        read = set(self.settings.clients_read(client_of.values()))
        return [node for node, client in client_of.items() if client in read]

    def keep(self, seen: Sighting) -> None:
        """Write what was seen, and beside it, where this machine can tell, what the client trained on."""
        client = self.cohort.client_of(seen.node_id)
        if client is None:
            return
        if seen.num_examples is None or not 1 <= seen.num_examples <= LARGEST:
            log(WARNING, "The update of client %s is not kept: it claims %s samples", client, seen.num_examples)
            return
        path = recording_of(self.settings, seen.server_round, client)
        facts = observed_facts(self.run, int(seen.num_examples), seen.server_round, client)
        save_update(path, seen.sent, seen.received, **facts.model_dump())
        if self.settings.engine == "deployment":
            return  # its data lie on the client's machine
        try:
            used = used_samples(self.run, client, seen.server_round)
        except BadSettings as reason:
            log(WARNING, "What client %s trained on is not kept: %s", client, reason)
            return
        if len(used) != facts.num_samples:
            log(
                WARNING,
                "What client %s trained on is not kept: it trained on %s samples, and by what it claims on %s",
                client,
                len(used),
                facts.num_samples,
            )
            return
        save_originals(path, used.x, used.y)


def observed_facts(run: HorizontalRun, num_examples: int, server_round: int, client: int) -> Facts:
    """Return what the server knows of the work of a client that holds `num_examples`: it is the server that asked."""
    settings, task = run.settings, run.task
    epoch = step_sizes(num_examples, settings.batch_size)
    steps = num_steps(num_examples, settings.batch_size, settings.local_epochs)
    skipped = (server_round - 1) * steps if settings.continue_epochs else 0
    sizes = [epoch[(skipped + step) % len(epoch)] for step in range(steps)]
    turn = sizes[: len(epoch)]  # the steps until every sample that is used had its turn
    optimizer = plugins.parse(settings.optimizer)
    # The first step of momentum is that of plain SGD; of later ones the update tells a direction alone.
    first = steps == 1 and set(optimizer.options) == {"momentum"}
    plain = optimizer.name == "sgd" and (not optimizer.options or first)
    return Facts(
        model=settings.model,
        sample_shape=cast(tuple[int, int, int], task.sample_shape),  # of an image: the check has seen to it
        num_classes=task.num_classes,
        mean=task.mean,
        std=task.std,
        num_samples=sum(turn),
        learning_rate=settings.learning_rate if plain else None,
        local_steps=steps,
        batch_size=_batch_size(turn) if steps > 1 else None,
        batch_norm="evaluation" if uses_running_statistics(num_examples, settings.batch_size) else "training",
        round=server_round,
        client=client,
        epoch=(server_round - 1) * min(steps, len(epoch)) // len(epoch) + 1,
    )


def _batch_size(sizes: Sequence[int]) -> int | tuple[int, ...]:
    """Return the one size that says how large the steps are, the last of which may be smaller; all where none does."""
    *full, last = sizes
    return sizes[0] if all(size == sizes[0] for size in full) and last <= sizes[0] else tuple(sizes)
