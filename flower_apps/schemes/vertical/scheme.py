"""Vertical learning: clients hold features of the same samples, the server holds the labels and tests the whole."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import torch

from thornbed.attacks import Knowledge
from thornbed.clients.vfl import BackdoorClient, EmbeddingClient
from thornbed.flower_apps.run.client import Client, attack_text, is_malicious
from thornbed.flower_apps.run.feature_split import NATURAL, natural_agents
from thornbed.flower_apps.run.threat import check_threat
from thornbed.flower_apps.schemes.scheme import HORIZONTAL_ONLY, Scheme
from thornbed.flower_apps.schemes.vertical.checks import check
from thornbed.flower_apps.schemes.vertical.handlers import HANDLERS
from thornbed.flower_apps.schemes.vertical.run import VerticalRun
from thornbed.flower_apps.schemes.vertical.server import VerticalServer
from thornbed.flower_apps.settings import AUTO, BadSettings, Settings, plugins
from thornbed.protocol.threads import one_thread
from thornbed.tasks import Defaults
from thornbed.tasks.split.order import num_steps
from thornbed.tasks.split.party_work import PartyWork

# Adversaries tell each other what they hold and know a few labels; each is sent the gradients of its own embeddings.
# The labels of the others, the top model, and what honest clients hold or send stay out of their sight.
GIVES = frozenset(
    {
        Knowledge.OWN_DATA,
        Knowledge.OTHER_ATTACKERS,
        Knowledge.DEFENSE,
        Knowledge.OWN_GRADIENTS,
        Knowledge.FEW_LABELS,
    }
)


def _defaults(settings: Settings) -> Defaults:
    """Return the settings of Lee et al.: ten clients, half of them malicious; a round is a pass over the samples.

    A task whose features belong to agents by nature has as many clients, with networks for columns.
    """
    natural = natural_agents(settings.task)
    num_clients = (natural or 10) if settings.num_clients == AUTO else int(settings.num_clients)
    return Defaults(
        model="column_layers" if natural else "patch_cnn",
        optimizer="adam",
        learning_rate=1e-3,
        batch_size=256,
        rounds=10,
        num_clients=num_clients,
        clients_per_round=num_clients,
        malicious_share=0.5,
        partition=NATURAL if natural else "grid",
    )


def _seconds(run: VerticalRun) -> float:
    """Return about how long a run takes inline: the steps of all clients, timed on one, without what attackers do."""
    settings, task = run.settings, run.task
    steps = settings.rounds * num_steps(len(task.train), settings.batch_size, settings.local_epochs)
    work = PartyWork(run.bottom_model(0), run.optimizer)
    x = run.columns("test", 0)[: settings.batch_size]
    gradient = torch.zeros(len(x), run.embedding_size)
    seconds = []
    with one_thread():
        for turn in range(6):
            started = time.perf_counter()
            work.step(gradient if turn else None, x)
            seconds.append(time.perf_counter() - started)
    return 1.2 * steps * settings.num_clients * median(seconds[1:])


def _role(run: VerticalRun, client: Client) -> str:
    """Return the name of a client's role; refuse a node whose attack needs what the node has not."""
    if not is_malicious(run.settings, client.number, client.node_config):
        return EmbeddingClient.name
    if run.deployed:
        try:
            check_threat(plugins.parse_sum(attack_text(run.settings, client.node_config)), GIVES)
            run.conspiracy(client)
        except ValueError as problem:  # also an attack's own sentence, of its options or its graph
            raise BadSettings(str(problem)) from problem
    return BackdoorClient.name


def _beware(metrics: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say where adversaries that watch first had not agreed when the run ended."""
    if "inferred_samples" not in metrics or metrics["inferred_samples"] is not None:
        return []
    return [
        "nothing is known of rows that adversaries agreed on; where they watch first (badvfl for two passes, villain "
        "for four) a run that ends before has poisoned nothing"
    ]


SCHEME = Scheme(
    tasks=("tasks",),
    attacks=("attacks/vertical",),
    defenses=("defenses/vertical",),
    gives=GIVES,
    unused=HORIZONTAL_ONLY | {"clients_per_round", "start_from"},
    defaults=_defaults,
    run=VerticalRun,
    handlers=HANDLERS,
    check=check,
    learn=VerticalServer,
    seconds=_seconds,
    role=_role,
    keeps_state=True,
    beware=_beware,
)
