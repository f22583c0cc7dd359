"""Federated multitask learning: every node has a linear model of its own, and is tested on its own test points."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from thornbed.attacks import Knowledge
from thornbed.flower_apps.run.client import Client, channel_of
from thornbed.flower_apps.run.threat import check_threat
from thornbed.flower_apps.schemes.multitask.checks import check, rehearse
from thornbed.flower_apps.schemes.multitask.handlers import HANDLERS, aim_of
from thornbed.flower_apps.schemes.multitask.run import MultitaskRun, load_nodes
from thornbed.flower_apps.schemes.multitask.server import MultitaskServer
from thornbed.flower_apps.schemes.scheme import HORIZONTAL_ONLY, Scheme, check_kinds
from thornbed.flower_apps.settings import AUTO, BadSettings, Settings, plugins
from thornbed.tasks import Defaults

SECONDS_A_MESSAGE = 1e-3  # there and back, inline
FAR = 0.1  # a duality gap that is more than this part of the objective is worth a word


def _defaults(settings: Settings) -> Defaults:
    """Return the settings of MOCHA: all nodes in every round, ten passes over their points; half of them targets."""
    num_nodes = _num_nodes(settings)
    return Defaults(
        model="linear",
        optimizer="none",
        learning_rate=1.0,
        batch_size=1,
        local_epochs=10.0,
        rounds=50,
        num_clients=num_nodes,
        clients_per_round=num_nodes,
        malicious_share=0.5,
        partition="natural",
    )


def _num_nodes(settings: Settings) -> int:
    """Return how many nodes a task has, from its data only where nothing else says it."""
    if settings.num_clients != AUTO:
        return int(settings.num_clients)
    spec = plugins.parse(settings.task)
    module = importlib.import_module(plugins.find("task", spec.name).__module__)
    if spec.options.get("pooled"):
        return 1
    known = None if spec.options.keys() & {"leave_out", "groups"} else getattr(module, "NUM_NODES", None)
    return len(load_nodes(settings).nodes) if known is None else int(known)


def _role(run: MultitaskRun, client: Client) -> str:
    """Return the role of a client: in deployment what its node says, elsewhere the attack chooses where its points go.

    Refuses a malicious node whose attack cannot be carried out.
    """
    if not run.deployed or (aim := aim_of(run, client)) is None:
        return "benign"
    try:
        said = run.settings.model_copy(update={"attack": aim.attack})
        check_kinds(said, SCHEME)
        check_threat(plugins.parse_sum(aim.attack), GIVES)
        rehearse(aim, said.num_clients)
    except ValueError as error:
        raise BadSettings(str(error)) from error
    channel_of(run.settings, client.node_config, client.run_id)
    return "malicious"


def _seconds(run: MultitaskRun) -> float:
    """Return the time of messages inline, which is nearly all of it; the search of an attack is not counted."""
    return run.settings.rounds * run.settings.clients_per_round * SECONDS_A_MESSAGE


def _beware(metrics: Mapping[str, float | None], lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say where the models are far from those that the objective asks for."""
    gap, above = metrics.get("duality_gap"), metrics.get("primal_objective")
    if gap is None or above is None or gap <= FAR * above:
        return []
    return [
        f"the objective may be {gap / above:.0%} above its smallest value; more --rounds or --local-epochs bring it "
        "down, and so does a larger lambda2, or a safety that is larger where it was set"
    ]


# The attackers are sent their nodes' weights, and are taken to know all that the paper's attacker knows.
GIVES = frozenset(
    {
        Knowledge.OWN_DATA,
        Knowledge.OTHER_ATTACKERS,
        Knowledge.DEFENSE,
        Knowledge.TARGET_DATA,
        Knowledge.NODES_DATA,
        Knowledge.RELATIONS,
    }
)

SCHEME = Scheme(
    tasks=("tasks/multitask",),
    attacks=("attacks/multitask",),
    defenses=("defenses/trimming", "defenses/relations"),
    gives=GIVES,
    unused=HORIZONTAL_ONLY | {"model", "optimizer", "learning_rate", "batch_size", "partition", "start_from"},
    defaults=_defaults,
    run=MultitaskRun,
    handlers=HANDLERS,
    check=check,
    learn=MultitaskServer,
    seconds=_seconds,
    role=_role,
    keeps_state=True,
    counted="nodes are targets",
    beware=_beware,
    attack_begins="the attack looks for its points",
)
