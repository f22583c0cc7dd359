"""What a run of collaborative inference cannot be, said before anything starts."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from thornbed.attacks import Knowledge
from thornbed.attacks.inference import Attack
from thornbed.clients.inference import Coalition, Part, World
from thornbed.defenses.inference import ABSTAINS
from thornbed.flower_apps.run.client import channel_of
from thornbed.flower_apps.run.feature_split import check_division
from thornbed.flower_apps.run.stored_model import check_same_start
from thornbed.flower_apps.schemes.inference.run import InferenceRun, coalition_of
from thornbed.flower_apps.settings import AUTO, BadSettings, plugins
from thornbed.protocol.randomness import generator
from thornbed.protocol.threads import one_thread
from thornbed.strategies.collaborative_inference import FIRST_ATTACKED

STEPS = "steps"  # the option that says how long an attack takes; one is enough to try it


def check(run: InferenceRun, data: bool) -> None:
    """Refuse what cannot work, with the data or (deployment) without them; raises ValueError."""
    settings = run.settings
    if settings.device not in (AUTO, "cpu"):
        raise BadSettings(
            f"--device {settings.device} is not for --strategy collaborative_inference, which uses the CPU"
        )
    least = FIRST_ATTACKED if run.attacks else FIRST_ATTACKED - 1
    if settings.rounds < least:
        raise BadSettings(
            f"--rounds {settings.rounds} is too few: the first is for training, the second for queries"
            + (", and the third is attacked" if least == FIRST_ATTACKED else "")
        )
    run.optimizer([nn.Parameter(torch.zeros(1))])
    plugins.find("bottom", plugins.parse(settings.model).name)
    check_division(settings)
    if run.deployed:
        _check_apart(run)
    elif run.coalition is not None:
        channel_of(settings, {}, 0)
    if data:
        _check_data(run)


def _check_data(run: InferenceRun) -> None:
    settings, task = run.settings, run.task
    if task.modality == "text":
        raise BadSettings(
            f"--task {settings.task} has text samples, which --strategy collaborative_inference does not divide"
        )
    train, queries = run.asked.train, run.asked.queries
    if min(len(train), len(queries)) < 2 or len(train) < task.num_classes:
        raise BadSettings(f"validation leaves {len(train)} rows for training and {len(queries)} for queries")
    _ = run.blocks
    try:
        run.new_extractors()
    except (RuntimeError, MemoryError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadSettings(f"--model {settings.model} cannot be made for --task {settings.task}: {reason}") from error
    try:
        _rehearse(run)
    except (RuntimeError, MemoryError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadSettings(
            f"--strategy {settings.strategy} with --attack {settings.attack} and --defense {settings.defense} cannot "
            f"be made: {reason}"
        ) from error
    if settings.start_from:
        _ = run.extractors
        if run.goes_on:  # no checkpoint has the extractors
            check_same_start(settings, run.output)


def _check_apart(run: InferenceRun) -> None:
    """Refuse what clients on machines of their own cannot do, or what nobody could tell of them."""
    settings = run.settings
    made = coalition_of(run.attacks, tuple(range(settings.num_clients)))
    if made is not None and not 0 <= made.agents[0] <= made.agents[-1] < settings.num_clients:
        outside = made.agents[0] if made.agents[0] < 0 else made.agents[-1]
        raise BadSettings(f"--attack names client {outside}; clients are 0 to {settings.num_clients - 1}")
    if settings.start_from:
        raise BadSettings(
            "--start-from is not for --engine deployment: there each client has its own extractor, in the folder that "
            "state in its --node-config names"
        )
    if run.strategy.validation:
        raise BadSettings("validation is not for --engine deployment: nobody says there what extractors have seen")
    for spec in run.defenses:
        if "corrupted" in getattr(plugins.find("defense", spec.name), "told", ()):
            raise BadSettings(f"--defense {spec.name} is told who lies, which nobody knows in deployment")


def _rehearse(run: InferenceRun) -> None:
    """Try attack and defense on few made embeddings, so that what is out of range is refused before anything starts.

    The defense is tried on what the attack leaves, which may be clients too few for it to answer from.
    """
    settings, centre = run.settings, run.centre
    clients, model = settings.num_clients, centre.blank()
    made = torch.randn(2, clients, centre.embedding_size, generator=generator(0, "check"))
    toy = World(
        honest=made,
        labels=torch.zeros(2, dtype=torch.int64),
        network=lambda x, observed: centre.undefended(model, x, observed),
        defended=lambda x, observed: centre.undefended(model, x, observed),
    )
    with one_thread():
        observed = _tried(run, toy)
    if (left := int(observed.sum())) < settings.min_replies:
        raise BadSettings(
            f"--attack leaves {left} of {clients} clients that send anything, and --min-replies is "
            f"{settings.min_replies}"
        )
    answers = centre.answer(model, made, observed, made, generator(0, "check"))
    if bool((answers.labels == ABSTAINS).all()):
        raise BadSettings(
            f"--attack {settings.attack} leaves {left} of {clients} clients that send anything, and --defense "
            f"{settings.defense} answers no query from so few"
        )


def _tried(run: InferenceRun, toy: World) -> Tensor:
    """Try the attack with what it will know in a run, and return which clients then send anything, (M,) bool.

    In deployment, where nobody knows who lies, some client carries out each part. Raises BadSettings for an attack that
    looks at what others send and does not declare it: a run shows it NaN there.
    """
    count = run.settings.num_clients
    made = coalition_of(run.attacks, tuple(range(count))) if run.deployed else run.coalition
    parts = [
        Part(_short(part.attack), (number,) if run.deployed else part.agents, part.needs)
        for number, part in enumerate(() if made is None else made.parts)
        if not run.deployed or number < count
    ]
    observed = torch.ones(count, dtype=torch.bool)
    if not parts:
        return observed
    sent = Coalition(parts).send(toy)
    for client, block in sent.items():
        observed[client] = block is not None
    if not _finite(sent):
        others = frozenset({Knowledge.OTHER_EMBEDDINGS})
        if _finite(Coalition([replace(part, needs=part.needs | others) for part in parts]).send(toy)):
            raise BadSettings(
                f"--attack {run.settings.attack} looks at what other clients send, and its NEEDS does not say so; "
                "NEEDS takes Knowledge.OTHER_EMBEDDINGS"
            )
    return observed


def _finite(sent: Mapping[int, Tensor | None]) -> bool:
    return all(bool(block.isfinite().all()) for block in sent.values() if block is not None)


def _short(attack: Attack) -> Attack:
    """Return the attack with one step where it takes a number of steps that can be."""
    steps = inspect.signature(attack).parameters.get(STEPS)
    return attack if steps is None or steps.default < 1 else partial(attack, **{STEPS: 1})
