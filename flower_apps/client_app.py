"""Flower's client app: reads a message, plays its role, trains on one thread, replies."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from torch import Tensor, nn

from attacks.update import Sight
from clients.channel import Channel
from clients.local_training import Objective, evaluate, num_steps, one_thread, taken, train
from clients.role import Role
from defenses.acted import listening
from flower_apps import build
from flower_apps.config import BadSettings, Resolved, settings_from
from flower_apps.resolving import resolve
from flower_apps.roles import accomplices, channel_folder, is_attacked
from flower_apps.roles import role as role_of
from flower_apps.schemes import scheme_of
from flower_apps.schemes.inference_replies import answer as answer_query
from flower_apps.schemes.multitask_nodes import answer
from flower_apps.schemes.vertical_parties import answer_evaluation, answer_rows, answer_step
from protocol.actions import EVALUATE_SPLIT, IDENTIFY, QUERY_EMBED, QUERY_ROWS, TRAIN_MOCHA, TRAIN_SPLIT
from protocol.messages import Identity, evaluate_reply, identify_reply, read_request, train_reply
from protocol.randomness import generator
from protocol.vector import Layout, to_arrays, to_tensors
from tasks import Samples

app = ClientApp()


@app.query(IDENTIFY.removeprefix("query."))
def identify(message: Message, context: Context) -> Message:
    """Say which client this node holds, and its role."""
    settings, client = _settings(context), _client(context)
    name = scheme_of(settings).role(settings, client, context.node_config)
    return identify_reply(message, Identity(client, name))


@app.train()
def train_model(message: Message, context: Context) -> Message:
    """Train the model that came, as the role wants it, and send the result back."""
    settings, client = _settings(context), _client(context)
    arrays, server_round = read_request(message)
    role = _role(context, server_round)
    own, who = own_samples(settings, client, role, server_round, context.node_config), _who(role, client)
    network = _network(settings)
    with one_thread(), listening() as figures:
        samples = training_data(settings, role, own, who)
        network.load_state_dict(role.incoming(to_tensors(arrays)))
        network.to(build.device(settings))
        samples = role.prepare(network, samples, generator(settings.seed, "prepare", server_round, who))
        loss = _train(settings, server_round, who, samples, role.objective if role.edits_objective else None)
        trained = to_arrays(network.state_dict())
        if role.edits_update:
            layout = Layout.of(arrays, build.statistics(network))
            start = layout.flatten(arrays)
            update = layout.flatten(trained).sub_(start)

            def benign() -> Tensor:
                network.load_state_dict(to_tensors(arrays))
                _train(settings, server_round, who, own, None)
                return layout.flatten(to_arrays(network.state_dict())).sub_(start)

            sight = Sight(benign=benign, last_step=lambda: _last_step(context, server_round, start))
            source = generator(settings.seed, "outgoing", server_round, who)
            sent = role.outgoing(update, update[None], source, sight)
            trained = layout.unflatten(start + sent, trained)
    told = {name: float(value) for name, value in figures.items() if isinstance(value, int | float)}
    return train_reply(message, trained, len(samples), loss, told)


@app.train(TRAIN_MOCHA.removeprefix("train."))
def improve_duals(message: Message, context: Context) -> Message:
    """Do a node's part of a round of multitask learning."""
    return answer(_settings(context), _client(context), message, context)


@app.query(QUERY_EMBED.removeprefix("query."))
def embed_rows(message: Message, context: Context) -> Message:
    """Do an agent's part of a round of collaborative inference."""
    return answer_query(_settings(context), _client(context), message, context.node_config)


@app.query(QUERY_ROWS.removeprefix("query."))
def say_rows(message: Message, context: Context) -> Message:
    """Say which samples a party of vertical learning holds."""
    return answer_rows(_settings(context), _client(context), message, context)


@app.train(TRAIN_SPLIT.removeprefix("train."))
def embed(message: Message, context: Context) -> Message:
    """Do a party's part of a step of vertical learning."""
    return answer_step(_settings(context), _client(context), message, context)


@app.evaluate(EVALUATE_SPLIT.removeprefix("evaluate."))
def embed_tests(message: Message, context: Context) -> Message:
    """Do a party's part of testing a vertical model."""
    return answer_evaluation(_settings(context), _client(context), message, context)


@app.evaluate()
def evaluate_model(message: Message, context: Context) -> Message:
    """Test the model that came on the client's own training rows, for strategies that ask clients to."""
    settings, client = _settings(context), _client(context)
    arrays, _ = read_request(message)
    network = _network(settings)
    with one_thread():
        network.load_state_dict(to_tensors(arrays))
        samples = build.client_samples(settings, client)
        loss, accuracy = evaluate(network, samples, device=build.device(settings))
    return evaluate_reply(message, loss, accuracy, len(samples))


def own_samples(
    settings: Resolved, client: int, role: Role, server_round: int, node_config: Mapping[str, Any]
) -> Samples:
    """Return what a client holds before anything is poisoned: its own rows, or its group's share of theirs."""
    if role.group is None:
        return build.client_samples(settings, client)
    members = accomplices(settings, client, node_config)
    rows = np.concatenate([build.partitions(settings)[member] for member in members])
    pool = build.load_task(settings.task, settings.data_dir).samples("train", torch.from_numpy(rows))
    return role.group(pool, len(members), generator(settings.seed, "pool", server_round))


def training_data(settings: Resolved, role: Role, own: Samples, who: int | str) -> Samples:
    """Return what a role makes of a client's own samples: the same all run long, unlike the order of training."""
    return role.data(own, generator(settings.seed, "data", who))


def trains_alone(role: Role) -> bool:
    """Tell whether a client trains on samples that are its own alone, and known before it trains."""
    return role.group is None and not role.edits_samples


def claimed_samples(settings: Resolved, client: int, server_round: int) -> tuple[int, bool]:
    """Return how many samples a client will say it trained on in a round, and whether `used_samples` will know them.

    In deployment nobody can tell. Hardening makes of samples as many others.
    """
    role = role_of(settings, client, {}, attacked=is_attacked(settings, server_round))
    own = own_samples(settings, client, role, server_round, {})
    return len(training_data(settings, role, own, _who(role, client))), trains_alone(role)


def used_samples(settings: Resolved, client: int, server_round: int) -> Samples:
    """Return the samples that a client's update of a round comes from, in the order of their first use.

    Each is there once, but for a round of less than an epoch that goes on from one epoch into the next: what it takes
    of both counts twice, as it does in the update.

    For whoever measures what an update gives away; raises BadSettings where the client trains on samples that are made
    while it trains, or that it shares with others.
    """
    role = role_of(settings, client, {}, attacked=is_attacked(settings, server_round))
    if not trains_alone(role):
        raise BadSettings(f"client {client} trains on samples that are not its own alone")
    samples = training_data(settings, role, build.client_samples(settings, client), client)
    rows = torch.cat(taken(len(samples), **_course(settings, server_round, client, len(samples)))).tolist()
    if len(rows) > len(samples):
        rows = list(dict.fromkeys(rows))
    return samples.select(torch.tensor(rows)).decoded()


def _train(
    settings: Resolved, server_round: int, who: int | str, samples: Samples, objective: Objective | None
) -> float:
    """Train this process's network from the state that it holds, and return the mean loss."""
    return train(
        _network(settings),
        samples,
        optimizer=build.optimizer(settings),
        device=build.device(settings),
        objective=objective,
        **_course(settings, server_round, who, len(samples)),
    )


def _course(settings: Resolved, server_round: int, who: int | str, num_samples: int) -> dict[str, Any]:
    """Return which samples a client takes in a round, and in which order, as arguments of `train`."""
    course: dict[str, Any] = {"batch_size": settings.batch_size, "epochs": settings.local_epochs}
    if not settings.continue_epochs:
        return {**course, "generator": generator(settings.seed, "train", server_round, who)}
    # One order for the whole run, of which every round takes the next steps.
    steps = num_steps(num_samples, settings.batch_size, settings.local_epochs)
    return {
        **course,
        "generator": generator(settings.seed, "train", who),
        "skipped": (server_round - 1) * steps,
    }


def _who(role: Role, client: int) -> int | str:
    """Return whose randomness a client uses: its own, or that of the group it acts with."""
    return client if role.group is None else "group"


def _last_step(context: Context, server_round: int, model: Tensor) -> Tensor | None:
    """Return how far the server's model (d,) has moved since attackers last saw it, and leave it for the next round."""
    channel = Channel(channel_folder(_settings(context), context.node_config, context.run_id))
    earlier = channel.before(server_round)
    channel.leave(server_round, model)
    return None if earlier is None else model - earlier[1]


@lru_cache(maxsize=1)
def _network(settings: Resolved) -> nn.Module:
    """Return this process's one network: every message brings a whole state, so clients can take turns with it."""
    return build.model(settings, build.load_task(settings.task, settings.data_dir))


def _client(context: Context) -> int:
    partition_id = context.node_config.get("partition-id")
    if not isinstance(partition_id, int):
        raise ValueError("this node has no partition-id; give it one in --node-config, such as 'partition-id=0'")
    return partition_id


def _role(context: Context, server_round: int) -> Role:
    """Return the client's role in a round."""
    settings = _settings(context)
    attacked = is_attacked(settings, server_round)
    return _cached_role(settings, _client(context), tuple(sorted(context.node_config.items())), attacked)


@lru_cache(maxsize=4096)
def _cached_role(settings: Resolved, client: int, node_config: tuple[tuple[str, Any], ...], attacked: bool) -> Role:
    return role_of(settings, client, dict(node_config), attacked=attacked)


def _settings(context: Context) -> Resolved:
    own: dict[str, Any] = {
        key: str(context.node_config[key]) for key in ("data-dir", "device") if key in context.node_config
    }
    values: dict[str, Any] = {**context.run_config, **own}
    return _resolved(tuple(sorted(values.items())))


@lru_cache(maxsize=64)
def _resolved(values: tuple[tuple[str, Any], ...]) -> Resolved:
    return resolve(settings_from(dict(values)))
