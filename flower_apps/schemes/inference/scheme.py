"""Collaborative inference: clients hold features of the same samples, a fusion centre predicts from what they send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from thornbed.attacks import Knowledge
from thornbed.flower_apps.run.client import Client, is_malicious
from thornbed.flower_apps.run.feature_split import NATURAL, natural_agents
from thornbed.flower_apps.schemes.inference.checks import check
from thornbed.flower_apps.schemes.inference.handlers import ALONE, HANDLERS, lie_of_one
from thornbed.flower_apps.schemes.inference.run import InferenceRun
from thornbed.flower_apps.schemes.inference.server import InferenceServer
from thornbed.flower_apps.schemes.scheme import HORIZONTAL_ONLY, Scheme
from thornbed.flower_apps.settings import AUTO, NONE, BadSettings, Settings
from thornbed.protocol.randomness import generator
from thornbed.strategies.collaborative_inference import FIRST_ATTACKED
from thornbed.tasks import Defaults

SECONDS_A_STEP = 4e-4  # of one client's extractor
DEAR = 0.05  # a share of clean answers that a manifold may cost without a word

# Who attacks is sent the fusion centre's model where its attack needs that, and is taken to know the defense, what
# others send for the same query, and the true answers: the strongest attackers of the paper do.
GIVES = frozenset(
    {
        Knowledge.OWN_DATA,
        Knowledge.OTHER_ATTACKERS,
        Knowledge.DEFENSE,
        Knowledge.FUSION_MODEL,
        Knowledge.OTHER_EMBEDDINGS,
        Knowledge.TRUE_LABELS,
    }
)


def _defaults(settings: Settings) -> Defaults:
    """Return the settings of the CoPur paper's authors: a linear layer for each client, the last one is malicious.

    Clients are those that the task has by nature, ten otherwise.
    Rounds are those that there have to be: training, queries, and queries under attack. The optimiser is ours.
    """
    natural = natural_agents(settings.task)
    num_clients = (natural or 10) if settings.num_clients == AUTO else int(settings.num_clients)
    return Defaults(
        model="column_layers(hidden=())",
        optimizer="adam",
        learning_rate=1e-3,
        local_epochs=30.0,
        rounds=FIRST_ATTACKED if settings.attack != NONE else FIRST_ATTACKED - 1,
        num_clients=num_clients,
        clients_per_round=num_clients,
        malicious_share=0.1,
        partition=NATURAL if natural else "grid",
    )


def _role(run: InferenceRun, client: Client) -> str:
    """Return the name of a client's role; refuse a node that is malicious and cannot carry out its attack."""
    if not is_malicious(run.settings, client.number, client.node_config):
        return "benign"
    if run.deployed:
        made = torch.randn(2, run.embedding_size, generator=generator(0, "check"))
        try:
            lie_of_one(run, client, made)
        except ValueError as error:
            raise BadSettings(str(error)) from error
    return "malicious"


def _seconds(run: InferenceRun) -> float:
    """Return about how long the extractors take; what attacks and smoothing take is not counted."""
    steps = run.settings.local_epochs * len(run.asked.train) / run.settings.batch_size
    return steps * run.settings.num_clients * SECONDS_A_STEP


def _beware(metrics: Mapping[str, float | None], lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what a manifold costs that is too small, and which clients sent values that are not finite, in all rounds."""
    said = []
    for told in (line.get("defense") or {} for line in lines):
        if told.get("manifold_cost", 0.0) > DEAR:
            cost = round(100 * told["manifold_cost"])
            said.append(
                f"the manifold (bottleneck={told['bottleneck']}) costs {cost} points of clean accuracy on the last "
                "fifth of the training rows; a larger bottleneck costs less, and tolerates fewer liars"
            )
    rejected = [
        line["defense"]["rejected_by_agent"] for line in lines if "rejected_by_agent" in line.get("defense", ())
    ]
    if not rejected:
        return said
    counts = [sum(each) for each in zip(*rejected, strict=True)]
    who = ", ".join(f"client {client} for {count}" for client, count in enumerate(counts) if count)
    return [
        *said,
        f"values that are not finite came from {who} queries; they count as missing, and metrics.jsonl says when",
    ]


SCHEME = Scheme(
    tasks=("tasks",),
    attacks=("attacks/inference",),
    defenses=("defenses/purification", "defenses/inference"),
    gives=GIVES,
    gives_apart=ALONE,
    unused=HORIZONTAL_ONLY | {"clients_per_round"},
    defaults=_defaults,
    run=InferenceRun,
    handlers=HANDLERS,
    check=check,
    learn=InferenceServer,
    seconds=_seconds,
    role=_role,
    counted="clients lie",
    beware=_beware,
)
