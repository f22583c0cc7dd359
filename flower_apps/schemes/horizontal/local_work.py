"""What a horizontal client does with the server's model: its samples, its training, and the update that it sends.

The same functions tell an attacker what others would send, and a curious server's testbed what a client trained on, so
that all of them speak of the same samples in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord
from torch import Tensor

from thornbed.attacks.update import Sight
from thornbed.clients.local_training import MakeOptimizer, Objective, num_steps, taken, train
from thornbed.clients.role import Role
from thornbed.defenses.reporting import listening
from thornbed.flower_apps.run.client import accomplices
from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun
from thornbed.flower_apps.settings import BadSettings
from thornbed.protocol.randomness import generator
from thornbed.protocol.vector import Layout, to_arrays, to_tensors
from thornbed.tasks import Samples

NOTHING_SEEN = Sight(benign=lambda: torch.empty(0), last_step=lambda: None)  # honest clients look at their own update
Who = int | str
"""Whose randomness a client uses: its own number, or "group" where several clients act as one."""


@dataclass(frozen=True, eq=False)
class Trained:
    """What a role's training made of the server's model: the model's arrays, the number of samples, the mean loss."""

    arrays: ArrayRecord
    num_samples: int
    loss: float


def trained(run: HorizontalRun, role: Role, own: Samples, who: Who, server_round: int, arrays: ArrayRecord) -> Trained:
    """Train the server's model as a role does on a client's own samples, with this process's network."""
    seed, network = run.settings.seed, run.network
    samples = training_data(run, role, own, who)
    network.load_state_dict(role.incoming(to_tensors(arrays)))
    network.to(run.device)
    samples = role.prepare(network, samples, generator(seed, "prepare", server_round, who))
    objective = role.objective if role.edits_objective else None
    loss = train_network(run, samples, who, server_round, objective)
    return Trained(to_arrays(network.state_dict()), len(samples), loss)


def train_network(
    run: HorizontalRun,
    samples: Samples,
    who: Who,
    server_round: int,
    objective: Objective | None = None,
    optimizer: MakeOptimizer | None = None,
) -> float:
    """Train this process's network from the state that it holds, and return the mean loss."""
    return train(
        run.network,
        samples,
        optimizer=optimizer or run.optimizer,
        device=run.device,
        objective=objective,
        **_course(run, server_round, who, len(samples)),
    )


def own_samples(
    run: HorizontalRun, client: int, role: Role, server_round: int, node_config: Mapping[str, Any]
) -> Samples:
    """Return what a client holds before anything is poisoned: its own rows, or its group's share of theirs."""
    if role.group is None:
        return run.client_samples(client)
    members = accomplices(run.settings, client, node_config)
    rows = np.concatenate([run.partitions[member] for member in members])
    pool = run.task.samples("train", torch.from_numpy(rows))
    return role.group(pool, len(members), generator(run.settings.seed, "pool", server_round))


def training_data(run: HorizontalRun, role: Role, own: Samples, who: Who) -> Samples:
    """Return what a role makes of a client's own samples: the same all run long, unlike the order of training."""
    return role.data(own, generator(run.settings.seed, "data", who))


def who_is(role: Role, client: int) -> Who:
    """Return whose randomness a client uses: its own, or that of the group it acts with."""
    return client if role.group is None else "group"


def honest_update(run: HorizontalRun, client: int, server_round: int, arrays: ArrayRecord, layout: Layout) -> Tensor:
    """Return the update (d,) that a client would send if it were honest, as it would send it."""
    role, start = run.honest_role(client), layout.flatten(arrays)
    own = own_samples(run, client, role, server_round, {})
    with listening():  # what its defenses report is for nobody: it does not send this
        update = layout.flatten(trained(run, role, own, client, server_round, arrays).arrays).sub_(start)
        if not role.edits_update:
            return update
        source = generator(run.settings.seed, "outgoing", server_round, client)
        return role.outgoing(update, update[None], source, NOTHING_SEEN)


def trains_alone(role: Role) -> bool:
    """Tell whether a client trains on samples that are its own alone, and known before it trains."""
    return role.group is None and not role.edits_samples


def claimed_samples(run: HorizontalRun, client: int, server_round: int) -> tuple[int, bool]:
    """Return how many samples a client will say it trained on in a round, and whether `used_samples` will know them.

    In deployment nobody can tell. Hardening makes of samples as many others.
    """
    role = run.role(client, {}, server_round)
    own = own_samples(run, client, role, server_round, {})
    return len(training_data(run, role, own, who_is(role, client))), trains_alone(role)


def used_samples(run: HorizontalRun, client: int, server_round: int) -> Samples:
    """Return the samples that a client's update of a round comes from, in the order of their first use.

    Each is there once, but for a round of less than an epoch that goes on from one epoch into the next: what it takes
    of both counts twice, as it does in the update.

    For whoever measures what an update gives away; raises BadSettings where the client trains on samples that are made
    while it trains, or that it shares with others.
    """
    role = run.role(client, {}, server_round)
    if not trains_alone(role):
        raise BadSettings(f"client {client} trains on samples that are not its own alone")
    samples = training_data(run, role, run.client_samples(client), client)
    rows = torch.cat(taken(len(samples), **_course(run, server_round, client, len(samples)))).tolist()
    if len(rows) > len(samples):
        rows = list(dict.fromkeys(rows))
    return samples.select(torch.tensor(rows)).decoded()


def _course(run: HorizontalRun, server_round: int, who: Who, num_samples: int) -> dict[str, Any]:
    """Return which samples a client takes in a round, and in which order, as arguments of `train`."""
    settings = run.settings
    course: dict[str, Any] = {"batch_size": settings.batch_size, "epochs": settings.local_epochs}
    if not settings.continue_epochs:
        return {**course, "generator": generator(settings.seed, "train", server_round, who)}
    # One order for the whole run, of which every round takes the next steps.
    steps = num_steps(num_samples, settings.batch_size, settings.local_epochs)
    return {**course, "generator": generator(settings.seed, "train", who), "skipped": (server_round - 1) * steps}
