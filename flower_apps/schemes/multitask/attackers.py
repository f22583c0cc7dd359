"""Who attacks in multitask learning, and the points that are injected into a client.

On one machine the attacker chooses where its points go. In deployment a node says itself that it is malicious, and its
`--node-config` names its `accomplices`, the `targets` (without them an attack is aimed at those it holds), the
`channel` that they share, and maybe an `attack`.
"""

from __future__ import annotations

from thornbed.flower_apps.run.client import Client, accomplices, attack_text, channel_of, clients_in, says_malicious
from thornbed.flower_apps.schemes.multitask.injection import Aim, shared
from thornbed.flower_apps.schemes.multitask.run import MultitaskRun
from thornbed.flower_apps.settings import BadSettings
from thornbed.tasks.multitask import Points


def aim_of(run: MultitaskRun, client: Client) -> Aim | None:
    """Return what a node of a deployment says that its attack is; None of an honest one.

    Raises BadSettings where it says what cannot be.
    """
    settings, said = run.settings, client.node_config
    if not says_malicious(said):
        return None
    text = attack_text(settings, said)
    sources = accomplices(settings, client.number, said) if "accomplices" in said else (client.number,)
    if "targets" not in said:
        return Aim(text, sources, sources)
    return Aim(text, clients_in(said, "targets", "the clients whose models are to be wrong", settings), sources)


def injected(run: MultitaskRun, client: Client) -> Points | None:
    """Return the points that are injected into a client, None where there are none."""
    if not run.deployed:
        return run.injection.points.get(client.number)
    if (aim := aim_of(run, client)) is None:
        return None
    found = shared(channel_of(run.settings, client.node_config, client.run_id), lambda: run.search(aim))
    if found.points and client.number not in found.points:
        raise BadSettings(
            f"client {client.number} is none of the attackers that share its channel; name all of them in "
            'accomplices="3,7"'
        )
    return found.points.get(client.number)
