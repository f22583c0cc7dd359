"""What a run of collaborative inference cannot be, said before anything starts."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import nn

from thornbed.attacks.inference import QuerySight, SentEmbeddings
from thornbed.defenses.inference import ABSTAINS
from thornbed.flower_apps.run import build
from thornbed.flower_apps.run.feature_split import blocks, check_division
from thornbed.flower_apps.run.threat import check_threat
from thornbed.flower_apps.schemes.inference.agents import assigned, coalition, extractor, extractors, rows
from thornbed.flower_apps.schemes.inference.centre import centre, strategy
from thornbed.flower_apps.schemes.inference.replies import ALONE
from thornbed.flower_apps.settings import AUTO, NONE, BadSettings, Resolved, plugins
from thornbed.protocol.randomness import generator
from thornbed.strategies.collaborative_inference import FIRST_ATTACKED

QUICK = {"steps": 1}  # options that say how long an attack takes, when it is only tried


def check(settings: Resolved, data: bool) -> None:
    """Refuse what cannot work, with the data or (deployment) without them; raises ValueError."""
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
    if settings.engine == "deployment":
        _check_apart(settings)
    if not data:
        return
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


def _check_apart(settings: Resolved) -> None:
    """Refuse what agents on machines of their own cannot do, or what nobody could tell of them."""
    check_threat(settings, ALONE)
    made = assigned(settings.attack, tuple(range(settings.num_clients)))
    if made is not None and not 0 <= made.agents[0] <= made.agents[-1] < settings.num_clients:
        outside = made.agents[0] if made.agents[0] < 0 else made.agents[-1]
        raise BadSettings(f"--attack names agent {outside}; agents are 0 to {settings.num_clients - 1}")
    if settings.start_from:
        raise BadSettings(
            "--start-from is not for --engine deployment: there each agent has its own extractor, in the folder that "
            "state in its --node-config names"
        )
    if strategy(settings).validation:
        raise BadSettings("validation is not for --engine deployment: nobody says there what extractors have seen")
    for spec in [] if settings.defense == NONE else plugins.parse_sum(settings.defense):
        if "corrupted" in getattr(plugins.find("defense", spec.name), "told", ()):
            raise BadSettings(f"--defense {spec.name} is told who lies, which nobody knows in deployment")


@lru_cache(maxsize=256)
def _rehearse(settings: Resolved) -> None:
    """Try attack and defense on few made embeddings, so that what is out of range is refused before anything starts.

    The defense is tried on what the attack leaves, which may be agents too few for it to answer from.
    """
    fusing = centre(settings)
    model = fusing.blank()
    agents = settings.num_clients
    made = torch.randn(2, agents, fusing.embedding_size, generator=generator(0, "check"))
    sent = SentEmbeddings(embeddings=made, observed=torch.ones(agents, dtype=torch.bool))
    for attackers, spec in _attackers(settings):
        quick = {name: value for name, value in QUICK.items() if spec.options.get(name, 1) >= 1}
        taken = {option.name for option in plugins.describe("attack", spec.name).options}
        short = {**spec.options, **{name: value for name, value in quick.items() if name in taken}}
        short.pop("agents", None)
        toy = QuerySight(
            labels=torch.zeros(2, dtype=torch.int64),
            network=lambda x, observed: fusing.undefended(model, x, observed),
            defended=lambda x, observed: fusing.undefended(model, x, observed),
        )
        sent = plugins.load("attack", plugins.Spec(spec.name, short))(sent, attackers, toy)
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


def _attackers(settings: Resolved) -> list[tuple[tuple[int, ...], plugins.Spec]]:
    """Return who carries out each part of the attack; in deployment, where nobody knows it, some agent each."""
    specs = [] if settings.attack == NONE else plugins.parse_sum(settings.attack)
    if settings.engine == "deployment":
        return [((number,), spec) for number, spec in enumerate(specs[: settings.num_clients])]
    made = coalition(settings)
    return [] if made is None else [(part.agents, spec) for part, spec in zip(made.parts, specs, strict=True)]
