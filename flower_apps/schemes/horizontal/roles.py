"""Which role a client plays in a round: from the specs of attacks and defenses to what it does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from thornbed.attacks import Knowledge
from thornbed.attacks.data import DataAttack, Divided, GroupMember, Leaking
from thornbed.clients.backdoor import Backdoor
from thornbed.clients.benign import ALONE, Benign, Perturbation
from thornbed.clients.poisoning import DataPoisoning, GroupPoisoning, TrainingPoisoning, UpdatePoisoning
from thornbed.clients.role import Role, Roles
from thornbed.defenses.hardening import Hardening
from thornbed.flower_apps.run.threat import needs
from thornbed.flower_apps.settings import Resolved, plugins
from thornbed.flower_apps.settings.plugins import Spec
from thornbed.tasks import Samples


@dataclass(frozen=True)
class Attack:
    """The parts of an attack, by what they touch, in the order they were written.

    Attributes
    ----------
    parts : of each the spec, the folder of attacks/ in which it lies, and the attack.
    needs : what the attackers must know, of all parts together.
    """

    parts: tuple[tuple[Spec, str, Any], ...]
    needs: frozenset[Knowledge]

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

    @property
    def shares(self) -> bool:
        """Whether attackers leave each other what they see or would send, so that they need a channel."""
        return any(
            needs(spec.name) & {Knowledge.OTHER_ATTACKERS, Knowledge.EARLIER_MODELS}
            for spec, folder, _ in self.parts
            if folder != "attacks/group"
        )

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
        return Roles([_role(spec, folder, attack, member) for spec, folder, attack in self.parts])


def _role(spec: Spec, folder: str, attack: Any, member: GroupMember) -> Role:
    if folder == "attacks/data":
        mine = attack.for_member(member) if isinstance(attack, Divided) else attack
        return Backdoor(mine) if mine.backdoor else DataPoisoning(mine)
    if folder == "attacks/group":
        return GroupPoisoning(attack)
    sees_accomplices = Knowledge.OTHER_ATTACKERS in needs(spec.name)
    made = {"attacks/update": UpdatePoisoning, "attacks/training": TrainingPoisoning}[folder]
    return made(attack, sees_accomplices=sees_accomplices)


def attack_of(text: str, base: Path | None) -> Attack | None:
    """Build an attack of its spec; None for none. `base` is the folder with the data."""
    specs = plugins.parse_sum(text)
    if not specs:
        return None
    folders = plugins.available("attack")
    parts = tuple((spec, folders.get(spec.name, ""), plugins.load("attack", spec, base)) for spec in specs)
    return Attack(parts, frozenset(each for spec in specs for each in needs(spec.name)))


@dataclass(frozen=True)
class Defense:
    """The parts of a defense on the clients, by what they touch, each in the order they were written."""

    perturbations: tuple[Perturbation, ...] = ()
    hardenings: tuple[Hardening, ...] = ()

    @classmethod
    def of(cls, specs: Sequence[Spec]) -> Defense:
        """Build the defenses of specs; one of no parts for none."""
        folders = plugins.available("defense")
        parts = [(folders.get(spec.name, ""), plugins.load("defense", spec)) for spec in specs]
        return cls(
            tuple(part for folder, part in parts if folder == "defenses/perturbation"),
            tuple(part for folder, part in parts if folder == "defenses/hardening"),
        )

    @property
    def min_confidence(self) -> float:
        """The confidence below which a prediction is rejected: the largest of the parts, 0 where none says one."""
        return max((part.min_confidence for part in self.hardenings), default=0.0)

    def benign(self, leaking: Sequence[Leaking] = (), member: GroupMember = ALONE) -> Benign:
        """Return the role of an honest client with this defense."""
        return Benign(self.perturbations, leaking, member, hardenings=self.hardenings)


def is_attacked(settings: Resolved, server_round: int) -> bool:
    """Tell whether malicious clients attack in a round: of the first r rounds floor(attack_share * r) are attacked."""
    share = Fraction(str(settings.attack_share))
    return math.floor(share * server_round) > math.floor(share * (server_round - 1))
