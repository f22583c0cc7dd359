"""The parties of a vertical run: their features, their networks, their adversaries, and how they answer messages."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from functools import lru_cache
from logging import WARNING
from pathlib import Path
from typing import Any, cast

import networkx as nx
import torch
from flwr.app import Context, Message
from flwr.common.logger import log
from torch import Tensor, nn

from thornbed.attacks.vertical import VerticalAttack
from thornbed.attacks.vertical.coalition import known_rows
from thornbed.clients.channel import Channel, Moment
from thornbed.clients.collusion import Collusion
from thornbed.clients.vfl import BackdoorClient, EmbeddingClient, EvaluationRows
from thornbed.defenses.vertical import InTurn, VerticalDefense
from thornbed.flower_apps.run import build
from thornbed.flower_apps.run.feature_split import blocks
from thornbed.flower_apps.run.kept_networks import keep, kept_folder, kept_state, last_kept
from thornbed.flower_apps.run.roles import accomplices, channel_folder, says_malicious
from thornbed.flower_apps.settings import NONE, BadSettings, Resolved, plugins
from thornbed.protocol.randomness import derived_seed, generator
from thornbed.protocol.split import Held, embeddings_reply, read_evaluation, read_rows_request, read_step, rows_reply
from thornbed.protocol.threads import one_thread
from thornbed.protocol.vector import to_arrays, to_tensors
from thornbed.strategies.split_nn import Course, SplitNN
from thornbed.tasks import Samples, Split
from thornbed.tasks.blocks import block_shapes
from thornbed.tasks.bottoms import bottom
from thornbed.tasks.split.party_work import PartyWork
from thornbed.tasks.split.records import Records

PARTY = "party"  # in a client's state
# Inline a client lives as long as its context does; elsewhere all of it is in `context.state`.
_living: dict[int, EmbeddingClient] = {}


def part(settings: Resolved, split: Split, client: int) -> Records:
    """Return a client's part of the samples, decoded; their ids are their numbers in the task."""
    task = build.load_task(settings.task, settings.data_dir)
    samples = task.train if split == "train" else task.test
    columns = samples.x.flatten(1)[:, torch.tensor(blocks(settings)[client])]
    return Records(torch.arange(len(samples)), Samples(columns, samples.y).decoded().x)


def bottom_model(settings: Resolved, client: int) -> nn.Module:
    """Build a client's network with first weights that depend on the seed and its number alone."""
    task, block = build.load_task(settings.task, settings.data_dir), blocks(settings)[client]
    shape = block_shapes([block], task.sample_shape)[0]
    make = plugins.load("bottom", settings.model)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derived_seed(settings.seed, "bottom", client))
        size, whole = strategy(settings).embedding_size, task.sample_shape
        return bottom(make, block, shape, size, mean=task.mean, std=task.std, sample_shape=whole)


def strategy(settings: Resolved, course: Course | None = None) -> SplitNN:
    """Build the strategy with the defenses of the server; raises ValueError for options out of range."""
    make = plugins.load("strategy", settings.strategy)
    built: SplitNN = make(build.cohort(settings), settings.min_replies, settings.seed, course, guard(settings))
    return built


def guard(settings: Resolved) -> VerticalDefense | None:
    """Return the server's defenses, one after the other; None without any."""
    specs = [] if settings.defense == NONE else plugins.parse_sum(settings.defense)
    parts = tuple(plugins.load("defense", spec) for spec in specs)
    return InTurn(parts) if len(parts) > 1 else (parts[0] if parts else None)


def attack(settings: Resolved, text: str | None = None) -> VerticalAttack | None:
    """Return the attack of the run, or the one that a node names; None without one."""
    text = settings.attack if text is None else text
    if text == NONE:
        return None
    base = Path(settings.data_dir).expanduser() if settings.data_dir else None
    return cast(VerticalAttack, plugins.load("attack", text, base))


def known(settings: Resolved, made: VerticalAttack) -> Tensor:
    """Return the training rows (k,) whose labels the adversaries know; raises ValueError where there are too few."""
    labels = build.load_task(settings.task, settings.data_dir).train.y
    return known_rows(labels, made.target, made.num_known, made.known_target_share, generator(settings.seed, "known"))


def graph(settings: Resolved, made: VerticalAttack, adversaries: tuple[int, ...]) -> nx.Graph:
    """Return how the adversaries are connected; raises ValueError where they are not."""
    return made.connected(adversaries, generator(settings.seed, "graph"))


def role(settings: Resolved, client: int, node_config: Mapping[str, Any]) -> str:
    """Return the role of a client: in deployment what the node says of itself, elsewhere what the settings say."""
    malicious = says_malicious(node_config) if settings.engine == "deployment" else client in settings.malicious
    return BackdoorClient.name if malicious else EmbeddingClient.name


def answer_rows(settings: Resolved, client: int, message: Message, context: Context) -> Message:
    """Say which samples this client holds; an adversary leaves its features for its neighbours meanwhile."""
    server_round, new = read_rows_request(message)
    with one_thread():
        party, _ = _party(settings, client, context, server_round, new=new)
        party.greet((server_round, -1))
        _keep(settings, party, context)
    return rows_reply(message, Held(party.train.ids, party.test.ids))


def answer_step(settings: Resolved, client: int, message: Message, context: Context) -> Message:
    """Do a client's part of a step."""
    request = read_step(message)
    moment = request.server_round, request.step
    with one_thread():
        party, went_on = _party(settings, client, context, request.server_round)
        source = generator(settings.seed, "party", *moment, client)
        # A client that has lost what it embedded last cannot learn from its gradient.
        embeddings = party.step(request.gradient if went_on else None, request.rows, moment, source)
        _keep(settings, party, context)
    return embeddings_reply(message, {"embeddings": embeddings})


def answer_evaluation(settings: Resolved, client: int, message: Message, context: Context) -> Message:
    """Learn from the last gradient of a round, embed test samples, and keep the network for a run that goes on."""
    request = read_evaluation(message)
    asked = EvaluationRows(request.rows, request.attacked, request.probe)
    with one_thread():
        party, went_on = _party(settings, client, context, request.server_round)
        source = generator(settings.seed, "party", request.server_round, "evaluation", client)
        found = party.evaluate(request.gradient if went_on else None, asked, source)
        _keep(settings, party, context)
    if (folder := kept_folder(settings, context.node_config)) is not None:
        keep(folder, client, request.server_round, party.state())
    return embeddings_reply(message, found)


def _party(
    settings: Resolved, client: int, context: Context, server_round: int, *, new: bool = False
) -> tuple[EmbeddingClient, bool]:
    """Return the client as it was after its last message, and whether that is so.

    It is not where the client is new, or has lost its state: then it goes on from what it kept after the round before,
    or after an earlier one where no message told it that a round was over. One that the server calls `new` has kept
    nothing, whatever round it is.
    """
    if (living := _living.get(id(context))) is not None:
        return living, True
    party = _made(settings, client, context)
    moment: Moment = (server_round, 0)
    if (record := context.state.array_records.get(PARTY)) is not None:
        party.restore(to_tensors(record), moment)
        return party, True
    if server_round > 1 and not new:
        folder = kept_folder(settings, context.node_config)
        kept = None if folder is None else last_kept(folder, client, server_round)
        if folder is None or kept is None:
            where = 'name a folder in --node-config, state="FOLDER"' if folder is None else f"it is not in {folder}"
            raise ValueError(f"client {client} has lost its network of round {server_round - 1}: {where}")
        if kept < server_round - 1:
            log(WARNING, "Client %s goes on from round %s, the last one after which it kept its network", client, kept)
        party.restore(kept_state(folder, client, kept) or {}, moment)
    return party, False


def _keep(settings: Resolved, party: EmbeddingClient, context: Context) -> None:
    """Keep a client until its next message."""
    if settings.engine != "inline":
        context.state[PARTY] = to_arrays(party.state())
    elif id(context) not in _living:
        _living[id(context)] = party
        weakref.finalize(context, _living.pop, id(context), None)


@lru_cache(maxsize=64)
def _parts(settings: Resolved, client: int) -> tuple[Records, Records]:
    return part(settings, "train", client), part(settings, "test", client)


def _made(settings: Resolved, client: int, context: Context) -> EmbeddingClient:
    """Return a client with a new network."""
    train, test = _parts(settings, client)
    steps = strategy(settings).local_steps
    work = PartyWork(bottom_model(settings, client), build.optimizer(settings), local_steps=steps)
    if role(settings, client, context.node_config) == EmbeddingClient.name:
        return EmbeddingClient(train, test, work)
    return BackdoorClient(train, test, work, _collusion(settings, client, context))


def _collusion(settings: Resolved, client: int, context: Context) -> Collusion:
    named = context.node_config.get("attack") if settings.engine == "deployment" else None
    made = attack(settings, None if named is None else str(named))
    if made is None:
        raise BadSettings("this node is malicious and there is no attack: name one in --node-config or in the run")
    task, rows = build.load_task(settings.task, settings.data_dir), known(settings, made)
    adversaries = accomplices(settings, client, context.node_config)
    held = {each: blocks(settings)[each] for each in adversaries}
    made.check(held, task.sample_shape, task.num_classes)
    return Collusion(
        attack=made,
        graph=graph(settings, made, adversaries),
        blocks=held,
        sample_shape=task.sample_shape,
        num_classes=task.num_classes,
        known=rows,
        labels=task.train.y[rows],
        client=client,
        box=Channel(channel_folder(settings, context.node_config, context.run_id)),
        seed=settings.seed,
    )
