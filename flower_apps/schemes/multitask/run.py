"""A run of multitask learning, built once: its clients' points, its strategy, and the points that are injected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from thornbed.attacks.multitask import Injection, NodesView
from thornbed.clients.channel import Channel
from thornbed.clients.multitask import Trimming
from thornbed.flower_apps.run.client import channel_of
from thornbed.flower_apps.run.run import Run
from thornbed.flower_apps.settings import BadSettings, Settings, plugins
from thornbed.flower_apps.settings.plugins import Spec
from thornbed.protocol.randomness import derived_seed, generator
from thornbed.protocol.vector import to_tensors
from thornbed.strategies.mocha import OMEGA, Mocha
from thornbed.tasks.mocha.objective import Coupling
from thornbed.tasks.multitask import Multitask, Points

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


NOTHING = Injection({}, np.empty(0))


class MultitaskRun(Run):
    """What runs have in which every client has a linear model of its own, over points of its own."""

    @cached_property
    def task(self) -> Multitask:  # type: ignore[override]  # a task of another kind: points by client
        """The task with the points of all clients."""
        return load_nodes(self.settings)

    @cached_property
    def strategy(self) -> Mocha:
        """A strategy that has seen no round."""
        return self.new_strategy()

    def new_strategy(self) -> Mocha:
        """Build the strategy, with the defenses of the server; raises ValueError for options out of range."""
        settings, make = self.settings, plugins.load("strategy", self.settings.strategy)
        relations = tuple(plugins.load("defense", spec) for spec in self.specs_in("defenses/relations"))
        made: Mocha = make(self.cohort(), settings.min_replies, settings.seed, settings.local_epochs, relations)
        return made

    @cached_property
    def trimmings(self) -> tuple[Trimming, ...]:
        """The defenses of the clients, in the order they were written."""
        return tuple(plugins.load("defense", spec) for spec in self.specs_in("defenses/trimming"))

    @cached_property
    def coupling(self) -> Coupling:
        """How the clients are coupled in the first round."""
        first = self.strategy.initial(len(self.task.features), len(self.task.nodes))
        return self.strategy.coupling(to_tensors(first)[OMEGA].numpy())

    @cached_property
    def targets(self) -> tuple[int, ...]:
        """The clients that the attack is aimed at: those that were named, or so many drawn by the seed.

        Nobody knows them in deployment but those who attack.
        """
        settings = self.settings
        if settings.named_malicious:
            return settings.named_malicious
        order = torch.randperm(settings.num_clients, generator=generator(settings.seed, "targets")).tolist()
        return tuple(sorted(order[: settings.num_malicious]))

    @cached_property
    def injection(self) -> Injection:
        """The points that the attack injects, found once: by this process, or by another one for all.

        In deployment there are none that the server knows.
        """
        if not self.attacks or not self.targets:
            return NOTHING
        aim = Aim(self.settings.attack, self.targets)
        if self.settings.engine == "inline":
            return self.search(aim)
        return shared(channel_of(self.settings, {}, 0), lambda: self.search(aim))

    def search(self, aim: Aim) -> Injection:
        """Let an attack look for its points; raises ValueError where it cannot be made."""
        view = NodesView(
            points=self.task.train,
            targets=aim.targets,
            sources=aim.sources,
            loss=self.task.loss,
            coupling=self.coupling,
            intercept=self.task.intercept,
            floor=self.strategy.floor if self.strategy.learn_omega else None,
        )
        attack = plugins.load("attack", aim.attack)
        found: Injection = attack(view, generator(self.settings.seed, "injection"))
        return found


def load_nodes(settings: Settings) -> Multitask:
    """Return the points of a task; which random split into training and test, the seed says unless the spec does."""
    spec = plugins.parse(settings.task)
    options = {option.name for option in plugins.describe("task", spec.name).options}
    if "split" in options:
        # Its own number of 32 bits, which is what NumPy's generator takes.
        spec = Spec(spec.name, {"split": derived_seed(settings.seed, "split") % 2**32, **spec.options})
    return _loaded(str(spec), settings.data_dir)


@lru_cache(maxsize=12)  # ten splits of one task, and some
def _loaded(spec: str, data_dir: str) -> Multitask:
    folder = Path(data_dir).expanduser() if data_dir else None
    if folder is not None and not folder.is_dir():
        raise BadSettings(f"--data-dir {data_dir} is no folder")
    task: Multitask = plugins.load("task", spec)(folder)
    return task
