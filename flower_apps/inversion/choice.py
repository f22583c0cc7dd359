"""Which replies a curious server reads, as --curious-clients and --curious-every say."""

from __future__ import annotations

from collections.abc import Iterable

from thornbed.flower_apps.settings import AUTO, Resolved


def rounds_read(settings: Resolved) -> range:
    """Return the rounds of which it reads replies: the first alone, or 1, 1 + N, 1 + 2 N, ..."""
    return range(1, 2) if settings.curious_every == AUTO else range(1, settings.rounds + 1, settings.curious_every)


def clients_read(settings: Resolved, clients: Iterable[int]) -> list[int]:
    """Return those whose replies it reads of the clients that send one in such a round, ascending."""
    there, wanted = sorted(clients), settings.curious_clients
    if wanted == "all":
        return there
    if wanted == AUTO:
        return there[:1]
    numbers = {int(client) for client in wanted.split(",")}
    return [client for client in there if client in numbers]
