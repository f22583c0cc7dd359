"""What a scheme of learning is: everything in which a run of it differs from runs of the others.

A strategy class of `strategies/` names its scheme in an attribute `scheme`; every rule of `defenses/aggregation` is
horizontal learning. The scheme is a folder beside this file with a module `scheme`, which holds the constant
`SCHEME: Scheme`. Whatever is the same in all schemes, such as folders, rounds, checkpoints, engines and sweeps, knows
none of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from flwr.app import Message
from torch import Tensor

from thornbed.attacks import Knowledge
from thornbed.flower_apps.run.client import Client
from thornbed.flower_apps.run.run import Run
from thornbed.flower_apps.settings import BadSettings, Resolved, Settings, plugins
from thornbed.flower_apps.settings.plugins import ROOT
from thornbed.strategies import NumberedClients
from thornbed.tasks import Defaults

FOLDER = "flower_apps/schemes"
HORIZONTAL = "horizontal"  # of strategies that name no scheme, and of every aggregation rule

Beware = Callable[[Mapping[str, float | None], Sequence[Mapping[str, Any]]], Sequence[str]]
Handler = Callable[[Any, Client, Message], Message]
"""`(run, client, message) -> reply`: what a client answers to one action. The run is the scheme's own."""

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
        "channel_timeout",
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


def half(strategy: str, per_round: int) -> int:
    """Return half of a round's clients, rounded up."""
    return (per_round + 1) // 2


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """What a scheme of learning takes, and how a run of it is built, checked, timed and made.

    Attributes
    ----------
    tasks, attacks, defenses : the folders whose plug-ins it takes.
    gives : what its attackers can learn.
    gives_apart : what an attacker on a machine of its own can learn; None: the same.
    unused : settings that have no meaning in it.
    defaults : what settings leave to the task.
    run : builds the run of resolved settings, a `Run` or a class derived from it; the next ones are given that run.
    handlers : by message type (`protocol.actions`), what a client answers.
    check : refuses what cannot work, with the data or (deployment) without them; raises ValueError.
    learn : makes the server's side of a run.
    seconds : about how long a run takes.
    role : the name of a client's role; raises BadSettings where a node is malicious and cannot attack.
    least_replies : of a strategy's spec and the clients of a round, the replies below which a run stops by default.
    keeps_state : whether clients keep tensors after each round (`Client.state`), without which no run goes on.
    counted : what the threat model says of the clients that `--num-malicious` counts.
    attack_begins : what an attack does before the first round, where it takes its time.
    beware : sentences on metrics of a finished run, and the lines of its rounds, that say it is not what it seems.
    """

    tasks: tuple[str, ...]
    attacks: tuple[str, ...]
    defenses: tuple[str, ...]
    gives: frozenset[Knowledge]
    gives_apart: frozenset[Knowledge] | None = None
    unused: frozenset[str] = frozenset()
    defaults: Callable[[Settings], Defaults]
    run: Callable[[Resolved], Run]
    handlers: Mapping[str, Handler]
    check: Callable[[Any, bool], None]
    learn: Callable[[Any], Learning]
    seconds: Callable[[Any], float]
    role: Callable[[Any, Client], str]
    least_replies: Callable[[str, int], int] = half
    keeps_state: bool = False
    counted: str = "clients are malicious"
    attack_begins: str = ""
    beware: Beware = lambda metrics, lines: ()

    def known_in(self, engine: str) -> frozenset[Knowledge]:
        """Return what attackers can learn in an engine."""
        return self.gives if engine != "deployment" or self.gives_apart is None else self.gives_apart


def available() -> list[str]:
    """Return the names of the schemes, ascending, without importing any."""
    return sorted(path.parent.name for path in (ROOT / FOLDER).glob("*/scheme.py"))


@lru_cache
def load(name: str) -> Scheme:
    """Import a scheme; raises BadSettings where there is none of that name."""
    if name not in available():
        raise BadSettings(f"there is no scheme called {name}; there are {', '.join(available())}")
    scheme: Scheme = importlib.import_module(f"thornbed.{FOLDER.replace('/', '.')}.{name}.scheme").SCHEME
    return scheme


def scheme_of(settings: Settings) -> Scheme:
    """Return the scheme of a run's strategy; raises BadSpec where there is no such strategy."""
    strategy = plugins.find("strategy", plugins.parse(settings.strategy).name)
    return load(getattr(strategy, "scheme", HORIZONTAL))


@lru_cache(maxsize=2)
def built(settings: Resolved) -> Run:
    """Return the run of resolved settings: one object in this process for whoever asks."""
    return scheme_of(settings).run(settings)


def check_kinds(settings: Settings, scheme: Scheme) -> None:
    """Refuse a task, an attack or a defense that is not there, or that a run's scheme does not take.

    Raises BadSpec and BadSettings.
    """
    for kind, folders in (("task", scheme.tasks), ("attack", scheme.attacks), ("defense", scheme.defenses)):
        known = plugins.available(kind)
        for spec in plugins.parse_sum(getattr(settings, kind)):
            plugins.check_name(kind, spec.name)
            if known[spec.name] not in folders:
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
