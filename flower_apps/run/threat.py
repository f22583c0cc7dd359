"""The threat model of a run: who is malicious, what its attack must know, and what the defense was told."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from thornbed.attacks import Knowledge
from thornbed.flower_apps.settings import NONE, BadSettings, Settings, plugins
from thornbed.flower_apps.settings.plugins import Spec

ORACLE = "num_byzantine"


def needs(name: str) -> frozenset[Knowledge]:
    """Return what an attack must know; raises BadSettings where it does not say so."""
    module = importlib.import_module(plugins.find("attack", name).__module__)
    declared = getattr(module, "NEEDS", None)
    if not isinstance(declared, frozenset) or not all(isinstance(each, Knowledge) for each in declared):
        raise BadSettings(
            f"attack {name} does not say what it must know; its module takes a constant such as "
            "NEEDS = frozenset({Knowledge.OWN_DATA}), with Knowledge from attacks"
        )
    return declared


def check_threat(attacks: Iterable[Spec], given: frozenset[Knowledge]) -> None:
    """Refuse an attack that must know what is not given to its attacker; raises BadSettings."""
    for spec in attacks:
        if missing := sorted(needs(spec.name) - given):
            raise BadSettings(
                f"attack {spec.name} must know {' and '.join(missing)}, which a malicious client does not learn here; "
                f"it can know {_listed(given)}"
            )


def threat_model(settings: Settings, malicious: int) -> dict[str, Any]:
    """Return the threat model as it is recorded: the attackers, what each part of the attack needs, what is told."""
    parts, oracles = plugins.parse_sum(settings.attack), plugins.parse_sum(settings.defense)
    strategy = plugins.parse(settings.strategy)
    return {
        "malicious": malicious,
        "num_clients": settings.num_clients,
        "needs": {spec.name: sorted(needs(spec.name)) for spec in parts},
        "curious": settings.curious,
        # A defense that is told the number of attackers knows more than it would in the field.
        "defense_was_told": {
            name: value for name, value in strategy.options.items() if name == ORACLE and value is not None
        }
        | {what: True for spec in oracles for what in _told(spec.name)},
    }


def _told(defense: str) -> list[str]:
    """Return what a defense says that it must be told, though nobody knows it in the field."""
    return sorted(getattr(plugins.find("defense", defense), "told", ()))


def spoken(model: Mapping[str, Any], engine: str, counted: str = "clients are malicious") -> str:
    """Return a threat model as one sentence; `counted` is what its scheme says of the clients it counts."""
    if not model["needs"]:
        text = "nobody attacks"
        if engine == "deployment":
            text += ", unless a node names an attack of its own"
    else:
        count = f"{model['malicious']} of {model['num_clients']} {counted}"
        if engine == "deployment":
            count = 'nodes with role="malicious" attack'
        knows = "; ".join(
            f"{name} must know {' and '.join(what) or 'nothing'}" for name, what in model["needs"].items()
        )
        text = f"{count}; {knows}"
    if model.get("curious", NONE) != NONE:
        text += (
            f"; the server is curious: it keeps to the protocol and inverts what clients send with {model['curious']}"
        )
    told = "".join(f"; the defense is told {name} = {value}" for name, value in model["defense_was_told"].items())
    return f"Threat model: {text}{told}."


def _listed(knowledge: frozenset[Knowledge]) -> str:
    return ", ".join(sorted(knowledge))
