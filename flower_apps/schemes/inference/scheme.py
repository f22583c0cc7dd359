"""Collaborative inference: agents hold features of the same samples, a fusion centre predicts from their embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from thornbed.attacks import Knowledge
from thornbed.flower_apps.run import build
from thornbed.flower_apps.run.feature_split import NATURAL, blocks, natural_agents
from thornbed.flower_apps.run.roles import says_malicious
from thornbed.flower_apps.run.stored_extractors import trained_on
from thornbed.flower_apps.schemes.inference.agents import coalition, extractors, rows, states_of
from thornbed.flower_apps.schemes.inference.answers import write_answers
from thornbed.flower_apps.schemes.inference.centre import centre, strategy
from thornbed.flower_apps.schemes.inference.checks import check
from thornbed.flower_apps.schemes.scheme import HORIZONTAL_ONLY, Scheme, known_malicious
from thornbed.flower_apps.settings import AUTO, NONE, Resolved, Settings
from thornbed.protocol.tensor_files import save_tensors
from thornbed.protocol.vector import to_tensors
from thornbed.strategies.collaborative_inference import ATTACKED, CLEAN, EXPLAINED, FIRST_ATTACKED, Queries, accuracies
from thornbed.tasks import Defaults

MODEL = "model.safetensors"
# Of what the strategy remembers.
TOLD = frozenset({CLEAN, ATTACKED, "moved", "gap", "clipped", "label_radius", "label_tolerated"})
SECONDS_A_STEP = 4e-4  # of one agent's extractor


class InferenceServer:
    """The server's side: the fusion centre, tested on the queries; it has the labels, the agents have the features."""

    def __init__(self, settings: Resolved) -> None:
        self.settings = settings
        self.task = build.load_task(settings.task, settings.data_dir)
        train, queries, split = rows(settings)
        self.labels = (self.task.test if split == "test" else self.task.train).y[queries]
        made = coalition(settings)
        public = made is not None and Knowledge.FUSION_MODEL in made.needs
        self.centre = centre(settings, len(train))
        self.strategy = strategy(
            settings, self.centre, Queries(train=train, queries=queries, split=split, public=public)
        )
        # In deployment each agent has its own extractor, and nobody has them all.
        apart = settings.engine == "deployment"
        self.networks = [] if apart else extractors(settings)
        self.trained_on = {} if apart else trained_on(settings, len(train))

    @property
    def malicious(self) -> frozenset[int]:
        """The agents that attack; in deployment those that are known by now."""
        return known_malicious(self.settings, self.strategy.cohort)

    @property
    def facts(self) -> Mapping[str, Any]:
        """The sizes of the networks, how many columns each agent holds, and what is asked."""
        networks: list[nn.Module] = [*self.networks, self.centre.blank()]
        sizes = [sum(each.numel() for each in network.parameters()) for network in networks]
        return {
            "device": "cpu",
            "num_parameters": sum(sizes),
            "num_parameters_fusion_centre": sizes[-1],
            "columns": [len(block) for block in blocks(self.settings)],
            "training_rows": len(self.centre.labels),
            "queries": len(self.labels),
        }

    def layout(self) -> Mapping[str, Tensor]:
        """Return a fusion centre's model like the run's."""
        return self.initial()

    def initial(self) -> Mapping[str, Tensor]:
        """Return one that has learned nothing."""
        return to_tensors(self.strategy.initial())

    def test(self, tensors: Mapping[str, Tensor]) -> dict[str, float | None]:
        """Return accuracies on the queries, of the rounds that there were, and the share of the most frequent class."""
        memory = self.strategy.memory
        right = accuracies(memory, self.labels)
        found = {"clean_accuracy": right[CLEAN], "robust_accuracy": right[ATTACKED]}
        if self.settings.attack == NONE:
            del found["robust_accuracy"]
        explained = memory.get(EXPLAINED)
        return {
            **found,
            "majority_share": float(self.labels.bincount().max()) / len(self.labels),
            "explained_variance": None if explained is None else float(explained),
        }

    def keep(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write model.safetensors (extractors but in deployment, autoencoder, head), answers.npz and the picture.

        answers.npz has labels (n,), the predictions `clean` and `attacked` (n,), how far purification moved each block,
        `moved_clean` and `moved_attacked` (n, M), NaN of one that was not used, how far above its minimum purification
        ended at most, `gap_clean` and `gap_attacked` (n,), NaN where nobody knows, how many blocks were so far away
        that they count as corrupted ones, `clipped_clean` and `clipped_attacked` (n,), and what a defense that
        certifies labels says of each, `label_radius_clean`, `label_tolerated_clean` and so on (n,).
        """
        from thornbed.flower_apps.schemes.inference.pictures import write_pictures

        save_tensors(folder / MODEL, {**states_of(self.networks), **tensors}, self.trained_on)
        told = {
            name.replace("/", "_"): tensor.numpy()
            for name, tensor in self.strategy.memory.items()
            if name.removesuffix(f"/{CLEAN}").removesuffix(f"/{ATTACKED}") in TOLD
        }
        write_answers(folder, {"labels": self.labels.numpy(), **told})
        write_pictures(folder, told, self.malicious)


def _defaults(settings: Settings) -> Defaults:
    """Return the settings of the CoPur paper's authors: a linear layer for each agent, the last one is malicious.

    Agents are those that the task has by nature, ten otherwise.
    Rounds are those that there have to be: training, queries, and queries under attack. The optimiser is ours.
    """
    natural = natural_agents(settings.task)
    num_agents = (natural or 10) if settings.num_clients == AUTO else int(settings.num_clients)
    return Defaults(
        model="column_layers(hidden=())",
        optimizer="adam",
        learning_rate=1e-3,
        local_epochs=30.0,
        rounds=FIRST_ATTACKED if settings.attack != NONE else FIRST_ATTACKED - 1,
        num_clients=num_agents,
        clients_per_round=num_agents,
        malicious_share=0.1,
        partition=NATURAL if natural else "grid",
    )


def _beware(metrics: Mapping[str, float | None], lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say which agents sent values that are not finite, and for how many queries in all rounds."""
    rejected = [
        line["defense"]["rejected_by_agent"] for line in lines if "rejected_by_agent" in line.get("defense", ())
    ]
    if not rejected:
        return []
    counts = [sum(each) for each in zip(*rejected, strict=True)]
    said = ", ".join(f"agent {agent} for {count}" for agent, count in enumerate(counts) if count)
    return [f"values that are not finite came from {said} queries; they count as missing, and metrics.jsonl says when"]


def _role(settings: Resolved, agent: int, node_config: Mapping[str, Any]) -> str:
    """Return the role of an agent: in deployment what the node says of itself, elsewhere what the settings say."""
    lies = says_malicious(node_config) if settings.engine == "deployment" else agent in settings.malicious
    return "malicious" if lies else "benign"


def _seconds(settings: Resolved) -> float:
    """Return about how long the extractors take; what attacks and smoothing take is not counted."""
    train, _, _ = rows(settings)
    steps = settings.local_epochs * len(train) / settings.batch_size
    return steps * settings.num_clients * SECONDS_A_STEP


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

SCHEME = Scheme(
    tasks=("tasks",),
    attacks=("attacks/inference",),
    defenses=("defenses/purification", "defenses/inference"),
    gives=GIVES,
    unused=HORIZONTAL_ONLY | {"clients_per_round"},
    defaults=_defaults,
    check=check,
    learn=InferenceServer,
    seconds=_seconds,
    role=_role,
    counted="agents lie",
    beware=_beware,
)
