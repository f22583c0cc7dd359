"""Which role a client plays in a round: from the specs of attacks and defenses to what it does."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from thornbed.attacks.data import DataAttack, Divided, GroupMember, Leaking
from thornbed.clients.backdoor import Backdoor
from thornbed.clients.benign import Benign, Perturbation
from thornbed.clients.poisoning import DataPoisoning, GroupPoisoning, TrainingPoisoning, UpdatePoisoning
from thornbed.clients.role import Role, Roles
from thornbed.defenses.hardening import Hardening
from thornbed.flower_apps.settings import NONE, BadSettings, Resolved, plugins
from thornbed.flower_apps.settings.plugins import Spec
from thornbed.tasks import Samples


@dataclass(frozen=True)
class Attack:
    """The parts of an attack, by what they touch, in the order they were written."""

    parts: tuple[tuple[Spec, str, Any], ...]

    def of(self, folder: str) -> list[Any]:
        """Return the parts that lie in a folder of attacks/, such as data."""
        return [attack for _, place, attack in self.parts if place == f"attacks/{folder}"]

    @property
    def data(self) -> list[DataAttack]:
        """The parts that touch data."""
        return self.of("data")

    @property
    def leaking(self) -> list[Leaking]:
        """The parts of whose samples honest clients may have some."""
        return [attack for attack in self.data if isinstance(attack, Leaking)]

    def measured(self, test: Samples) -> tuple[DataAttack | None, Samples | None]:
        """Return the part that the attack is measured by and what it is measured on, of the task's test samples.

        Of several parts that touch data the last one decides: it is what the attack ends in.
        """
        for part in reversed(self.data):
            measured = part.measure(test)
            if measured is not None and len(measured):
                return part, measured
        return None, None

    def role(self, member: GroupMember) -> Role:
        """Return the role of a client that makes this attack as one of several."""
        return Roles([_role(folder, attack, member) for _, folder, attack in self.parts])


def _role(folder: str, attack: Any, member: GroupMember) -> Role:
    if folder != "attacks/data":
        return {
            "attacks/update": UpdatePoisoning,
            "attacks/training": TrainingPoisoning,
            "attacks/group": GroupPoisoning,
        }[folder](attack)
    mine = attack.for_member(member) if isinstance(attack, Divided) else attack
    return Backdoor(mine) if mine.backdoor else DataPoisoning(mine)


def attack(text: str, data_dir: str) -> Attack | None:
    """Build an attack of its spec; None for none."""
    if text == NONE:
        return None
    folders = plugins.available("attack")
    base = Path(data_dir).expanduser() if data_dir else None
    specs = plugins.parse_sum(text)
    return Attack(tuple((spec, folders.get(spec.name, ""), plugins.load("attack", spec, base)) for spec in specs))


@dataclass(frozen=True)
class Defense:
    """The parts of a defense on the clients, by what they touch, each in the order they were written."""

    perturbations: tuple[Perturbation, ...] = ()
    hardenings: tuple[Hardening, ...] = ()

    @property
    def min_confidence(self) -> float:
        """The confidence below which a prediction is rejected: the largest of the parts, 0 where none says one."""
        return max((part.min_confidence for part in self.hardenings), default=0.0)


def defense(text: str) -> Defense:
    """Build a defense on the clients of its spec; one of no parts for none."""
    specs = [] if text == NONE else plugins.parse_sum(text)
    folders = plugins.available("defense")
    parts = [(folders.get(spec.name, ""), plugins.load("defense", spec)) for spec in specs]
    return Defense(
        tuple(part for folder, part in parts if folder == "defenses/perturbation"),
        tuple(part for folder, part in parts if folder == "defenses/hardening"),
    )


def role(settings: Resolved, client: int, node_config: Mapping[str, Any], *, attacked: bool = True) -> Role:
    """Return the role of a client in a round; where the round is not `attacked`, malicious clients are honest.

    In deployment the node's own `--node-config` decides: `role="malicious"`, with the run's attack or an `attack` of
    its own; without it the node is honest. In the other engines the run's settings decide.
    """
    if settings.engine == "deployment":
        malicious, text = says_malicious(node_config), str(node_config.get("attack", settings.attack))
        # Nobody knows here who else attacks: the node's own number stands for its number among its like.
        member = GroupMember(client, settings.num_clients)
    else:
        malicious, text = client in settings.malicious, settings.attack
        alike = [each for each in range(settings.num_clients) if (each in settings.malicious) == malicious]
        member = GroupMember(alike.index(client), len(alike))
    built = attack(text, settings.data_dir)
    if malicious and built is None:
        raise BadSettings("this node is malicious and there is no attack: name one in --node-config or in the run")
    if malicious and attacked and built is not None:
        return built.role(member)
    defended = defense(settings.defense)
    leaking = built.leaking if built is not None and not malicious else []
    return Benign(defended.perturbations, leaking, member, hardenings=defended.hardenings)


def says_malicious(node_config: Mapping[str, Any]) -> bool:
    """Tell whether a node of a deployment says of itself that it attacks."""
    wanted = str(node_config.get("role", "benign"))
    if wanted not in ("benign", "malicious"):
        raise BadSettings(f"role in --node-config is benign or malicious, not {wanted!r}")
    return wanted == "malicious"


def is_attacked(settings: Resolved, server_round: int) -> bool:
    """Tell whether malicious clients attack in a round: of the first r rounds floor(attack_share * r) are attacked."""
    share = Fraction(str(settings.attack_share))
    return math.floor(share * server_round) > math.floor(share * (server_round - 1))


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


def channel_folder(settings: Resolved, node_config: Mapping[str, Any], run_id: int) -> Path:
    """Return the folder in which attackers leave what they saw in this run.

    In deployment it is one below `channel` in `--node-config`: nodes outlive a run, and the model of another one is no
    earlier step of this. Runs are told apart by their output, which one that is resumed keeps, and without one by id.
    """
    if settings.engine != "deployment":
        if not settings.output:
            raise BadSettings("attackers that share what they saw need --output, below which they keep it")
        return Path(settings.output).expanduser() / "attackers"
    if not (folder := str(node_config.get("channel", ""))):
        raise BadSettings('attackers that share what they saw need channel="FOLDER" in --node-config')
    of_run = hashlib.sha256((settings.output or f"run {run_id}").encode()).hexdigest()[:16]
    return Path(folder).expanduser() / of_run
