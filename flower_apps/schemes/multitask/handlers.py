"""What a client of multitask learning answers: it improves its duals beside the weights that came.

Points may be injected into it. On one machine the attacker chooses where its points go. In deployment a node says
itself that it is malicious, and its `--node-config` names its `accomplices`, the `targets` (without them an attack is
aimed at those it holds), the `channel` that they share, and maybe an `attack`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from flwr.app import Message

from thornbed.clients.local_training import one_thread
from thornbed.clients.multitask import node_work
from thornbed.defenses.reporting import listening
from thornbed.flower_apps.run.client import Client, accomplices, attack_text, channel_of, clients_in, says_malicious
from thornbed.flower_apps.schemes.multitask.run import Aim, MultitaskRun, shared
from thornbed.flower_apps.schemes.scheme import Handler
from thornbed.flower_apps.settings import BadSettings
from thornbed.protocol.actions import TRAIN_MOCHA
from thornbed.protocol.client_state import LostState
from thornbed.protocol.multitask import NodeRequest, lost_reply, node_reply, read_node_request
from thornbed.protocol.randomness import generator
from thornbed.tasks.multitask import Array, Points


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


DUALS, SUM = "duals", "sum"  # in a client's state
LONGER = 10
"""Times its passes that a client makes which has lost its duals: new ones are to be as good as those in its weights."""


def improve_duals(run: MultitaskRun, client: Client, message: Message) -> Message:
    """Improve the duals of the client's own points and those injected into it, and send the sum of them back.

    A client that has lost its duals says so and does nothing; once it is told what is in its weights it makes new ones.
    """
    request, points, task = read_node_request(message), run.task.nodes[client.number].train, run.task
    if (more := injected(run, client)) is not None:
        points = points.join(more)
    try:
        alpha, held, anew = *_kept(client, request), False
    except LostState as lost:
        if request.held is None:
            return lost_reply(message, str(lost))
        alpha, held, anew = None, request.held, True
    with one_thread(), listening() as figures:
        work = node_work(
            points,
            alpha,
            request.weights,
            request.curvature,
            task.loss,
            generator(run.settings.seed, "train", request.server_round, client.number),
            passes=request.passes * (LONGER if anew and held.any() else 1),
            held=held,
            trimmings=run.trimmings,
        )
    kept = {DUALS: torch.from_numpy(work.alpha), SUM: torch.from_numpy(work.v)}
    client.state.save(request.server_round, kept, after=request.held_round)
    told = {name: float(value) for name, value in figures.items() if isinstance(value, int | float)}
    return node_reply(
        message,
        work.v,
        conjugate=work.conjugate,
        loss=work.loss,
        num_points=len(points),
        defense=told,
        anew=anew,
    )


def _kept(client: Client, request: NodeRequest) -> tuple[Array | None, Array]:
    """Return the duals (n,) behind the weights that came, None at first, and the sum (d,) of them; raises LostState."""
    kept = client.state.load(after=request.held_round)
    if kept is None:
        return None, np.zeros(len(request.weights))
    return kept[DUALS].numpy(), kept[SUM].numpy()


HANDLERS: Mapping[str, Handler] = {TRAIN_MOCHA: improve_duals}
