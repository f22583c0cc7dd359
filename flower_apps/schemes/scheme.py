"""Schemes of learning, one a file: what a run is made of, as its strategy has it.

A strategy class of `strategies/` names its scheme in an attribute `scheme`; every rule of `defenses/aggregation` is
horizontal learning. A module of this folder holds a constant `SCHEME: Scheme`. Whatever is the same in all schemes,
such as folders, rounds, checkpoints, engines and sweeps, knows none of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from thornbed.attacks import Knowledge
from thornbed.flower_apps.settings import NONE, BadSettings, Resolved, Settings, plugins
from thornbed.strategies import NumberedClients
from thornbed.tasks import Defaults

Beware = Callable[[Mapping[str, float | None], Sequence[Mapping[str, Any]]], Sequence[str]]

# What means something in horizontal learning alone: how its rounds are drawn and attacked, and who reads the updates.
HORIZONTAL_ONLY = frozenset(
    {
        "continue_epochs",
        "curious",
        "curious_clients",
        "curious_every",
        "record",
        "attack_share",
        "malicious_per_round",
    }
)


class Learning(Protocol):
    """The server's side of one run: its strategy, where it begins, how its model is tested, what is kept of it.

    `strategy` is one of Flower's that also has `cohort`, `account` of the latest round, and `memory`, as `FedAvg` has.
    """

    strategy: Any

    @property
    def malicious(self) -> frozenset[int]:
        """The clients that attack; in deployment those that are known by now."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """What config.json says of the run beside its settings."""
        ...

    def layout(self) -> Mapping[str, Tensor]:
        """Return tensors of the names, shapes and types that the run's have."""
        ...

    def initial(self) -> Mapping[str, Tensor]:
        """Return the tensors that the first round begins with."""
        ...

    def test(self, tensors: Mapping[str, Tensor]) -> dict[str, float | None]:
        """Return the metrics of the tensors after a round."""
        ...

    def keep(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write the final model and the pictures into the run's folder."""
        ...


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """What a scheme of learning takes, and how a run of it is checked, timed and made.

    Attributes
    ----------
    tasks, attacks, defenses : the folders whose plug-ins it takes.
    gives : what its attackers can learn.
    unused : settings that have no meaning in it.
    defaults : what settings leave to the task.
    check : refuses what cannot work, with the data or (deployment) without them; raises ValueError.
    learn : makes the server's side of a run.
    seconds : about how long a run takes.
    role : the name of a client's role, of the settings, its number and its `--node-config`.
    counted : what the threat model says of the clients that `--num-malicious` counts.
    attack_begins : what an attack does before the first round, where it takes its time.
    beware : sentences on metrics of a finished run, and the lines of its rounds, that say it is not what it seems.
    """

    tasks: tuple[str, ...]
    attacks: tuple[str, ...]
    defenses: tuple[str, ...]
    gives: frozenset[Knowledge]
    unused: frozenset[str] = frozenset()
    defaults: Callable[[Settings], Defaults]
    check: Callable[[Resolved, bool], None]
    learn: Callable[[Resolved], Learning]
    seconds: Callable[[Resolved], float]
    role: Callable[[Resolved, int, Mapping[str, Any]], str]
    counted: str = "clients are malicious"
    attack_begins: str = ""
    beware: Beware = lambda metrics, lines: ()


def scheme_of(settings: Settings) -> Scheme:
    """Return the scheme of a run's strategy; raises BadSpec where there is no such strategy."""
    strategy = plugins.find("strategy", plugins.parse(settings.strategy).name)
    module = importlib.import_module(f"thornbed.flower_apps.schemes.{getattr(strategy, 'scheme', 'horizontal')}.scheme")
    scheme: Scheme = module.SCHEME
    return scheme


def check_kinds(settings: Settings, scheme: Scheme) -> None:
    """Refuse a task, an attack, a defense or a setting that a run's scheme does not take; raises BadSettings."""
    for kind, folders in (("task", scheme.tasks), ("attack", scheme.attacks), ("defense", scheme.defenses)):
        known = plugins.available(kind)
        text = getattr(settings, kind)
        for spec in [] if text == NONE else plugins.parse_sum(text):
            if spec.name in known and known[spec.name] not in folders:
                fit = sorted(name for name, folder in known.items() if folder in folders)
                raise BadSettings(
                    f"--{kind} {spec.name} does not go with --strategy {_name(settings)}, which takes "
                    f"{', '.join(fit) or 'none'}"
                )


def check_unused(settings: Settings, scheme: Scheme, filled: Mapping[str, Any]) -> None:
    """Refuse a setting that was given and means nothing in a scheme; `filled` has what stands in its place."""
    defaults = Settings()
    for name in sorted(scheme.unused):
        if getattr(settings, name) not in (getattr(defaults, name), filled.get(name)):
            raise BadSettings(f"--{name.replace('_', '-')} means nothing with --strategy {_name(settings)}")


def known_malicious(settings: Resolved, cohort: Any) -> frozenset[int]:
    """Return who is malicious, for the records: the settings say it, in deployment the nodes themselves."""
    if settings.engine == "deployment" and isinstance(cohort, NumberedClients):
        return frozenset(client for client, role in cohort.roles.items() if role != "benign")
    return settings.malicious


def _name(settings: Settings) -> str:
    return plugins.parse(settings.strategy).name


__all__ = ["HORIZONTAL_ONLY", "Learning", "Scheme", "check_kinds", "check_unused", "known_malicious", "scheme_of"]
