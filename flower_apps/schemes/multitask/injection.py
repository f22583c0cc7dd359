"""What attackers of multitask learning have agreed on, and the letter in which one of them leaves what it found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from thornbed.attacks.multitask import Injection
from thornbed.clients.channel import Channel
from thornbed.tasks.multitask import Points

INJECTION = "injection"
LOSSES, BEST = "losses", "best_iteration"


@dataclass(frozen=True)
class Aim:
    """The attack, the clients whose models are to be wrong, and those that hold the points (None: any it likes)."""

    attack: str
    targets: tuple[int, ...]
    sources: tuple[int, ...] | None = None


def shared(channel: Channel, find: Callable[[], Injection]) -> Injection:
    """Return the injection in a channel, which whichever attacker comes first finds and leaves for the others."""
    return _injection(channel.once(INJECTION, lambda: _letter(find())))


def _letter(found: Injection) -> dict[str, Tensor]:
    letter = {LOSSES: torch.from_numpy(found.losses), BEST: torch.tensor(found.best_iteration)}
    for client, points in found.points.items():
        letter |= {f"x{client}": torch.from_numpy(points.x), f"y{client}": torch.from_numpy(points.y)}
    return letter


def _injection(letter: Mapping[str, Tensor]) -> Injection:
    clients = sorted(int(name[1:]) for name in letter if name.startswith("x"))
    points = {each: Points(letter[f"x{each}"].numpy(), letter[f"y{each}"].numpy()) for each in clients}
    return Injection(points, letter[LOSSES].numpy(), int(letter[BEST]))
