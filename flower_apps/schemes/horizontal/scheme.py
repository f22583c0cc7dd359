"""Horizontal learning: clients hold samples of their own, and train one model that the server tests."""

from __future__ import annotations

import importlib

from thornbed.attacks import Knowledge
from thornbed.flower_apps.run.client import Client, accomplices, attack_text, channel_of, is_malicious
from thornbed.flower_apps.run.threat import check_threat
from thornbed.flower_apps.schemes.horizontal.checks import check, check_updates
from thornbed.flower_apps.schemes.horizontal.handlers import HANDLERS
from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun, least_replies
from thornbed.flower_apps.schemes.horizontal.server import HorizontalServer
from thornbed.flower_apps.schemes.horizontal.timing import seconds_of_steps
from thornbed.flower_apps.schemes.scheme import Scheme, check_kinds
from thornbed.flower_apps.settings import BadSettings, Settings, plugins
from thornbed.tasks import Defaults

# A client is sent the server's model; its attack's options tell of the defense and of data like the target's, and
# attackers tell each other what they hold. Nothing relates one client to another, and there are no queries, no
# embeddings and no fusion centre.
GIVES_APART = frozenset(
    {
        Knowledge.OWN_DATA,
        Knowledge.SERVER_MODEL,
        Knowledge.EARLIER_MODELS,
        Knowledge.OTHER_ATTACKERS,
        Knowledge.DEFENSE,
        Knowledge.TARGET_DATA,
    }
)
# Where one machine plays all clients, an omniscient attacker can be played too: it sees what honest clients send.
GIVES = GIVES_APART | {Knowledge.HONEST_UPDATES}


def _defaults(settings: Settings) -> Defaults:
    function = plugins.find("task", plugins.parse(settings.task).name)
    defaults = importlib.import_module(function.__module__).DEFAULTS
    if not isinstance(defaults, Defaults):
        raise TypeError(f"{function.__module__} needs a constant DEFAULTS: Defaults")
    return defaults


def _role(run: HorizontalRun, client: Client) -> str:
    """Return the name of a client's role; refuse a node whose attack cannot be, or needs what the node has not."""
    said = client.node_config
    if not run.deployed or not is_malicious(run.settings, client.number, said):
        return run.role(client.number, said).name
    try:
        text = attack_text(run.settings, said)
        check_kinds(run.settings.model_copy(update={"attack": text}), SCHEME)
        check_threat(plugins.parse_sum(text), GIVES_APART)
        attack, role = run.attack_on(said), run.role(client.number, said)
        assert attack is not None  # a malicious client has one
        check_updates(run, attack)  # a node may name another attack than the run's, which nobody has looked at
    except ValueError as error:  # also an attack's own sentence, of its options
        raise BadSettings(str(error)) from error
    if attack.shares:
        channel_of(run.settings, said, client.run_id)
    if role.sees_accomplices or role.group is not None:
        accomplices(run.settings, client.number, said)
    return role.name


SCHEME = Scheme(
    tasks=("tasks",),
    attacks=("attacks/data", "attacks/training", "attacks/group", "attacks/update"),
    defenses=("defenses/perturbation", "defenses/hardening"),
    gives=GIVES,
    gives_apart=GIVES_APART,
    defaults=_defaults,
    run=HorizontalRun,
    handlers=HANDLERS,
    check=check,
    learn=HorizontalServer,
    seconds=seconds_of_steps,
    role=_role,
    least_replies=least_replies,
)
