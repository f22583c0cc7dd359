"""Collaborative inference: agents hold features of the same samples, a fusion centre predicts from their embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attacks import Knowledge
from attacks.inference import Sent, Sight
from defenses.inference import ABSTAINS
from flower_apps import build, plugins
from flower_apps.config import AUTO, NONE, BadSettings, Resolved, Settings
from flower_apps.schemes import HORIZONTAL_ONLY, Scheme
from flower_apps.schemes.division import NATURAL, blocks, check_division, natural_agents
from flower_apps.schemes.inference_agents import coalition, extractor, extractors, rows, states_of
from flower_apps.schemes.inference_answers import write_answers
from flower_apps.schemes.inference_centre import centre, strategy
from flower_apps.schemes.inference_earlier import trained_on
from protocol.randomness import generator
from protocol.tensor_files import save_tensors
from protocol.vector import to_tensors
from strategies.collaborative_inference import ATTACKED, CLEAN, EXPLAINED, FIRST_ATTACKED, Asked, accuracies
from tasks import Defaults

MODEL = "model.safetensors"
# Of what the strategy remembers.
TOLD = frozenset({CLEAN, ATTACKED, "moved", "gap", "clipped", "label_radius", "label_tolerated"})
SECONDS_A_STEP = 4e-4  # of one agent's extractor
QUICK = {"steps": 1}  # options that say how long an attack takes, when it is only tried


class Inference:
    """The server's side: the fusion centre, tested on the queries; it has the labels, the agents have the features."""

    def __init__(self, settings: Resolved) -> None:
        self.settings = settings
        self.task = build.load_task(settings.task, settings.data_dir)
        train, queries, split = rows(settings)
        self.labels = (self.task.test if split == "test" else self.task.train).y[queries]
        made = coalition(settings)
        public = made is not None and Knowledge.FUSION_MODEL in made.needs
        self.centre = centre(settings, len(train))
        self.strategy = strategy(settings, self.centre, Asked(train=train, queries=queries, split=split, public=public))
        self.networks, self.trained_on = extractors(settings), trained_on(settings, len(train))

    @property
    def malicious(self) -> frozenset[int]:
        """The agents that attack."""
        return self.settings.malicious

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
        """Write model.safetensors (extractors, autoencoder, head), answers.npz and the picture.

        answers.npz has labels (n,), the predictions `clean` and `attacked` (n,), how far purification moved each block,
        `moved_clean` and `moved_attacked` (n, M), NaN of one that was not used, how far above its minimum purification
        ended at most, `gap_clean` and `gap_attacked` (n,), NaN where nobody knows, how many blocks were so far away
        that they count as corrupted ones, `clipped_clean` and `clipped_attacked` (n,), and what a defense that
        certifies labels says of each, `label_radius_clean`, `label_tolerated_clean` and so on (n,).
        """
        from flower_apps.schemes.inference_pictures import write_pictures

        save_tensors(folder / MODEL, {**states_of(self.networks), **tensors}, self.trained_on)
        told = {
            name.replace("/", "_"): tensor.numpy()
            for name, tensor in self.strategy.memory.items()
            if name.removesuffix(f"/{CLEAN}").removesuffix(f"/{ATTACKED}") in TOLD
        }
        write_answers(folder, {"labels": self.labels.numpy(), **told})
        write_pictures(folder, told, self.settings)


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


def _check(settings: Resolved, data: bool) -> None:
    if settings.engine == "deployment":
        raise BadSettings(
            "--engine deployment does not go with --strategy collaborative_inference, whose agents share what they "
            "learned before; take inline or simulation"
        )
    if settings.device not in (AUTO, "cpu"):
        raise BadSettings(
            f"--device {settings.device} is not for --strategy collaborative_inference, which uses the CPU"
        )
    least = FIRST_ATTACKED if settings.attack != NONE else FIRST_ATTACKED - 1
    if settings.rounds < least:
        raise BadSettings(
            f"--rounds {settings.rounds} is too few: the first is for training, the second for queries"
            + (", and the third is attacked" if least == FIRST_ATTACKED else "")
        )
    build.optimizer(settings)([nn.Parameter(torch.zeros(1))])
    plugins.find("bottom", plugins.parse(settings.model).name)
    check_division(settings)
    task = build.load_task(settings.task, settings.data_dir)
    if task.modality == "text":
        raise BadSettings(
            f"--task {settings.task} has text samples, which --strategy collaborative_inference does not divide"
        )
    train, queries, _ = rows(settings)
    if min(len(train), len(queries)) < 2 or len(train) < task.num_classes:
        raise BadSettings(f"validation leaves {len(train)} rows for training and {len(queries)} for queries")
    blocks(settings)
    try:
        for agent in range(settings.num_clients):
            extractor(settings, agent)
    except (RuntimeError, MemoryError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadSettings(f"--model {settings.model} cannot be made for --task {settings.task}: {reason}") from error
    try:
        _rehearse(settings.model_copy(update={"output": "", "resume": False, "origin": ""}))
    except (RuntimeError, MemoryError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadSettings(
            f"--strategy {settings.strategy} with --attack {settings.attack} and --defense {settings.defense} cannot "
            f"be made: {reason}"
        ) from error
    if settings.start_from:
        extractors(settings)


@lru_cache(maxsize=256)
def _rehearse(settings: Resolved) -> None:
    """Try attack and defense on few made embeddings, so that what is out of range is refused before anything starts.

    The defense is tried on what the attack leaves, which may be agents too few for it to answer from.
    """
    fusing = centre(settings)
    model = fusing.blank()
    agents = settings.num_clients
    made = torch.randn(2, agents, fusing.embedding_size, generator=generator(0, "check"))
    sent = Sent(embeddings=made, observed=torch.ones(agents, dtype=torch.bool))
    attackers = coalition(settings)
    parts = [] if attackers is None else zip(attackers.parts, plugins.parse_sum(settings.attack), strict=True)
    for attack, spec in parts:
        quick = {name: value for name, value in QUICK.items() if spec.options.get(name, 1) >= 1}
        taken = {option.name for option in plugins.describe("attack", spec.name).options}
        short = {**spec.options, **{name: value for name, value in quick.items() if name in taken}}
        short.pop("agents", None)
        toy = Sight(
            labels=torch.zeros(2, dtype=torch.int64),
            network=lambda x, observed: fusing.undefended(model, x, observed),
            defended=lambda x, observed: fusing.undefended(model, x, observed),
        )
        sent = plugins.load("attack", plugins.Spec(spec.name, short))(sent, attack.agents, toy)
    if (left := int(sent.observed.sum())) < settings.min_replies:
        raise BadSettings(
            f"--attack leaves {left} of {agents} agents that send anything, and --min-replies is {settings.min_replies}"
        )
    answers = fusing.answer(model, made, sent.observed, made, generator(0, "check"))
    if bool((answers.labels == ABSTAINS).all()):
        raise BadSettings(
            f"--attack {settings.attack} leaves {left} of {agents} agents that send anything, and --defense "
            f"{settings.defense} answers no query from so few"
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
    check=_check,
    learn=Inference,
    seconds=_seconds,
    role=lambda settings, agent, node_config: "malicious" if agent in settings.malicious else "benign",
    counted="agents lie",
    beware=_beware,
)
