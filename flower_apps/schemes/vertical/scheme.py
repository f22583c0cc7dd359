"""Vertical learning: clients hold features of the same samples, the server holds the labels and tests the whole."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from thornbed.attacks import Knowledge
from thornbed.attacks.vertical.coalition import poisoned_at_most
from thornbed.attacks.vertical.graphs import algebraic_connectivity
from thornbed.clients.channel import Channel
from thornbed.clients.collusion import DECISION
from thornbed.flower_apps.run import build
from thornbed.flower_apps.run.feature_split import NATURAL, blocks, check_division, natural_agents
from thornbed.flower_apps.run.kept_networks import kept_folder, kept_state
from thornbed.flower_apps.run.roles import channel_folder
from thornbed.flower_apps.run.stored_extractors import EXTRACTOR, trained_on
from thornbed.flower_apps.schemes.scheme import HORIZONTAL_ONLY, Scheme, known_malicious
from thornbed.flower_apps.schemes.vertical.parties import attack, bottom_model, graph, known, part, role, strategy
from thornbed.flower_apps.settings import AUTO, NONE, BadSettings, Resolved, Settings, plugins
from thornbed.protocol.randomness import generator
from thornbed.protocol.tensor_files import save_tensors
from thornbed.protocol.threads import one_thread
from thornbed.protocol.vector import to_tensors
from thornbed.strategies.split_nn import Course
from thornbed.tasks import Defaults
from thornbed.tasks.metrics.vertical import inferred_rightly
from thornbed.tasks.split.kept_state import MODEL as BOTTOM
from thornbed.tasks.split.order import num_steps
from thornbed.tasks.split.party_work import PartyWork
from thornbed.tasks.split.records import Records

MODEL = "model.safetensors"


class VerticalServer:
    """The server's side: the top model, tested on what clients send of the test samples.

    How well adversaries infer labels is read from the letters that they leave for each other; in deployment nobody
    knows.
    """

    def __init__(self, settings: Resolved) -> None:
        self.settings = settings
        self.task = build.load_task(settings.task, settings.data_dir)
        self.attack = attack(settings)
        self.strategy = strategy(settings, course(settings))
        self.adversaries = tuple(sorted(settings.malicious))
        self.known = known(settings, self.attack) if self.attack and self.adversaries else None

    @property
    def malicious(self) -> frozenset[int]:
        """The clients that attack; in deployment those that are known by now."""
        return known_malicious(self.settings, self.strategy.cohort)

    @property
    def facts(self) -> Mapping[str, Any]:
        """The sizes of the networks, and how the adversaries are connected."""
        networks = [*(bottom_model(self.settings, each) for each in range(self.settings.num_clients)), self._top]
        sizes = [sum(each.numel() for each in network.parameters()) for network in networks]
        facts: dict[str, Any] = {"device": "cpu", "num_parameters": sum(sizes), "num_parameters_top": sizes[-1]}
        if self.attack is not None and self.adversaries:
            facts["adversary_edges"] = sorted(map(sorted, graph(self.settings, self.attack, self.adversaries).edges))
        return facts

    def layout(self) -> Mapping[str, Tensor]:
        """Return a top model like the run's."""
        return self._top.state_dict()

    def initial(self) -> Mapping[str, Tensor]:
        """Return the top model with its first weights."""
        return to_tensors(self.strategy.initial())

    def test(self, tensors: Mapping[str, Tensor]) -> dict[str, float | None]:
        """Return what was measured on the embeddings of the round; nothing before the first, when none have come."""
        names = ["clean_data_accuracy", "loss"]
        if self.attack is not None:
            names += ["attack_success_rate", "untriggered_rate", "replaced_rate"]
            names += ["label_inference_accuracy", "inferred_samples", "gradient_perturbation", "connectivity"]
        found: dict[str, float | None] = {**dict.fromkeys(names), **self.strategy.figures}
        if self.attack is not None and self.adversaries:
            found["connectivity"] = algebraic_connectivity(graph(self.settings, self.attack, self.adversaries))
            found |= self._inferred()
        return found

    def keep(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write model.safetensors and the pictures.

        The file has the top model and, where they are on this machine, the networks of all clients under the names that
        `--strategy collaborative_inference --start-from` looks for.
        """
        from thornbed.flower_apps.schemes.vertical.pictures import write_pictures

        save_tensors(folder / MODEL, {**tensors, **self._bottoms()}, trained_on(self.settings, len(self.task.train)))
        write_pictures(folder, self.settings, self.attack)

    @property
    def _top(self) -> nn.Module:
        return self.strategy.top.top

    def _bottoms(self) -> dict[str, Tensor]:
        if (kept := kept_folder(self.settings, {})) is None:
            return {}
        found: dict[str, Tensor] = {}
        for client in range(self.settings.num_clients):
            state = kept_state(kept, client, self.settings.rounds) or {}
            networks = {name.removeprefix(BOTTOM): each for name, each in state.items() if name.startswith(BOTTOM)}
            found |= {f"{EXTRACTOR}{client}.{name}": each for name, each in networks.items()}
        return found

    def _inferred(self) -> dict[str, float | None]:
        """Return how many rows the first adversary took for the target's beside those it knew, and how rightly."""
        letter = Channel(channel_folder(self.settings, {}, 0)).read(DECISION)
        if letter is None or self.known is None or self.attack is None:
            return {}
        rows = letter[f"agreed-{self.adversaries[0]}"]
        share, count = inferred_rightly(rows, self.task.train.y, self.attack.target, self.known)
        return {"label_inference_accuracy": share if count else None, "inferred_samples": float(count)}


def course(settings: Resolved) -> Course:
    """Return what the server holds of a task, and how long a round of it is."""
    task, made = build.load_task(settings.task, settings.data_dir), attack(settings)
    return Course(
        train=Records(torch.arange(len(task.train)), task.train.y),
        test=Records(torch.arange(len(task.test)), task.test.y),
        num_parties=settings.num_clients,
        num_classes=task.num_classes,
        batch_size=settings.batch_size,
        passes=settings.local_epochs,
        timeout=settings.reply_timeout,
        target=None if made is None else made.target,
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


def _check(settings: Resolved, data: bool) -> None:
    built = strategy(settings)
    if settings.device not in (AUTO, "cpu"):
        raise BadSettings(f"--device {settings.device} is not for --strategy split_nn, which learns on the CPU")
    build.optimizer(settings)([nn.Parameter(torch.zeros(1))])
    check_division(settings)
    plugins.find("bottom", plugins.parse(settings.model).name)
    if settings.attack != NONE and (parts := len(plugins.parse_sum(settings.attack))) != 1:
        raise BadSettings(f"--attack takes one attack of vertical learning, not {parts} joined by +")
    made = attack(settings)
    if made is not None and settings.engine != "deployment" and not settings.num_malicious:
        raise BadSettings(
            "--num-malicious 0 leaves the attack without an adversary; budget=0.0 is what poisons nothing"
        )
    if not data:
        return
    task = build.load_task(settings.task, settings.data_dir)
    if task.modality == "text":
        raise BadSettings(f"--task {settings.task} has text samples, which --strategy split_nn does not divide")
    divided = blocks(settings)
    try:
        for client, block in enumerate(divided):
            with torch.no_grad():
                bottom_model(settings, client)(torch.zeros(2, len(block)))
    except (RuntimeError, MemoryError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadSettings(f"--model {settings.model} cannot be made for --task {settings.task}: {reason}") from error
    made_up = torch.randn(4, settings.num_clients, built.embedding_size, generator=generator(0, "check"))
    if (guarding := built.top.guard) is not None:
        guarding.admit(
            made_up, torch.ones(4, settings.num_clients, dtype=torch.bool), generator(0, "check"), training=True
        )
        guarding.release(made_up, generator(0, "check"))
    if made is None or settings.engine == "deployment":
        return
    adversaries = tuple(sorted(settings.malicious))
    made.check({each: divided[each] for each in adversaries}, task.sample_shape, task.num_classes)
    graph(settings, made, adversaries)
    known(settings, made)
    if made.budget and not poisoned_at_most(made.budget, num_rows := len(task.train)):
        raise BadSettings(
            f"{made.name} poisons no row with budget = {made.budget} of {num_rows} training rows; more than "
            f"{0.5 / num_rows:.2g} is one row, and budget=0.0 is what poisons nothing"
        )


def _seconds(settings: Resolved) -> float:
    """Return about how long a run takes inline: the steps of all clients, timed on one, without what attackers do."""
    task = build.load_task(settings.task, settings.data_dir)
    steps = settings.rounds * num_steps(len(task.train), settings.batch_size, settings.local_epochs)
    work = PartyWork(bottom_model(settings, 0), build.optimizer(settings))
    x = part(settings, "test", 0).x[: settings.batch_size]
    gradient = torch.zeros(len(x), strategy(settings).embedding_size)
    seconds = []
    with one_thread():
        for turn in range(6):
            started = time.perf_counter()
            work.step(gradient if turn else None, x)
            seconds.append(time.perf_counter() - started)
    return 1.2 * steps * settings.num_clients * median(seconds[1:])


def _beware(metrics: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say where adversaries that watch first had not agreed when the run ended."""
    if "inferred_samples" not in metrics or metrics["inferred_samples"] is not None:
        return []
    return [
        "nothing is known of rows that adversaries agreed on; where they watch first (badvfl for two passes, villain "
        "for four) a run that ends before has poisoned nothing"
    ]


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

SCHEME = Scheme(
    tasks=("tasks",),
    attacks=("attacks/vertical",),
    defenses=("defenses/vertical",),
    gives=GIVES,
    unused=HORIZONTAL_ONLY | {"clients_per_round", "start_from"},
    defaults=_defaults,
    check=_check,
    learn=VerticalServer,
    seconds=_seconds,
    role=role,
    beware=_beware,
)
