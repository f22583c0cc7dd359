"""The server's side of vertical learning: the top model, tested on what clients send of the test samples.

The pictures of a run are rates and loss by round, and samples with the trigger and as adversaries made them up.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from thornbed.attacks.vertical import Adversary, VerticalAttack, View
from thornbed.attacks.vertical.graphs import algebraic_connectivity
from thornbed.clients.collusion import DECISION
from thornbed.clients.vfl import MEMORY
from thornbed.flower_apps.records.curves import ACCURACY, ATTACK, CURVES, Drawn, curves
from thornbed.flower_apps.records.folder import OF_RUN, Folder, settings_digest
from thornbed.flower_apps.records.image_sheet import DPI, GAP, HEADING, LINE, MARGIN, SIDE, Sheet, scale_of
from thornbed.flower_apps.records.plots import TRIGGER, save
from thornbed.flower_apps.run.client import channel_of
from thornbed.flower_apps.run.stored_extractors import EXTRACTOR, trained_on
from thornbed.flower_apps.schemes.scheme import known_malicious
from thornbed.flower_apps.schemes.vertical.run import VerticalRun
from thornbed.protocol.randomness import generator
from thornbed.protocol.tensor_files import save_tensors
from thornbed.protocol.vector import to_tensors
from thornbed.tasks.metrics.vertical import inferred_rightly, rows_to_attack
from thornbed.tasks.split.kept_state import MODEL as BOTTOM

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODEL = "model.safetensors"


class VerticalServer:
    """Tests the whole model on the embeddings of each round.

    How well adversaries infer labels is read from the letters that they leave for each other; in deployment nobody
    knows.
    """

    def __init__(self, run: VerticalRun) -> None:
        self.run, self.settings = run, run.settings
        self.strategy = run.new_strategy()
        self.adversaries = tuple(sorted(run.settings.malicious))
        attack = run.attack if self.adversaries else None
        self.known = None if attack is None else run.known(attack)
        self.graph = None if attack is None else run.graph(attack, self.adversaries)

    @property
    def malicious(self) -> frozenset[int]:
        """The clients that attack; in deployment those that are known by now."""
        return known_malicious(self.settings, self.strategy.cohort)

    @property
    def facts(self) -> Mapping[str, Any]:
        """The sizes of the networks, and how the adversaries are connected."""
        networks = [*(self.run.bottom_model(each) for each in range(self.settings.num_clients)), self._top]
        sizes = [sum(each.numel() for each in network.parameters()) for network in networks]
        facts: dict[str, Any] = {"device": "cpu", "num_parameters": sum(sizes), "num_parameters_top": sizes[-1]}
        if self.graph is not None:
            facts["adversary_edges"] = sorted(map(sorted, self.graph.edges))
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
        if self.run.attack is not None:
            names += ["attack_success_rate", "untriggered_rate", "replaced_rate"]
            names += ["label_inference_accuracy", "inferred_samples", "gradient_perturbation", "connectivity"]
        found: dict[str, float | None] = {**dict.fromkeys(names), **self.strategy.figures}
        if self.graph is not None:
            found["connectivity"] = algebraic_connectivity(self.graph)
            found |= self._inferred()
        return found

    def keep(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write model.safetensors and the pictures.

        The file has the top model and, where they are on this machine, the networks of all clients under the names that
        `--strategy collaborative_inference --start-from` looks for.
        """
        said = {**trained_on(self.settings, len(self.run.task.train)), OF_RUN: settings_digest(self.settings)}
        save_tensors(folder / MODEL, {**tensors, **self._bottoms()}, said)
        write_pictures(folder, self.run)

    @property
    def _top(self) -> nn.Module:
        return self.strategy.top.top

    def _bottoms(self) -> dict[str, Tensor]:
        return {
            f"{EXTRACTOR}{client}.{name.removeprefix(BOTTOM)}": tensor
            for client in range(self.settings.num_clients)
            for name, tensor in self.run.kept(client).items()
            if name.startswith(BOTTOM)
        }

    def _inferred(self) -> dict[str, float | None]:
        """Return how many rows the first adversary took for the target's beside those it knew, and how rightly."""
        letter = channel_of(self.settings, {}, 0).read(DECISION)
        if letter is None or self.known is None or self.run.attack is None:
            return {}
        rows, labels = letter[f"agreed-{self.adversaries[0]}"], self.run.task.train.y
        share, count = inferred_rightly(rows, labels, self.run.attack.target, self.known)
        return {"label_inference_accuracy": share if count else None, "inferred_samples": float(count)}


SHOWN = 6
RATES = (
    Drawn("clean_data_accuracy", "clean accuracy", ACCURACY),
    Drawn("attack_success_rate", "attack success", ATTACK, (0, (5, 2))),
)


def write_pictures(folder: Path, run: VerticalRun) -> None:
    """Write curves.png from the rounds in `folder`, and trigger.png where adversaries change pixels.

    Their networks and pools are those that they kept after the last round; in deployment nobody knows these.
    """
    from matplotlib import style

    with style.context("default"):
        if lines := [line for line in Folder(folder).lines() if line["round"]]:
            save(curves(lines, RATES), folder / CURVES, dpi=150)
        if run.attack is None or len(run.task.sample_shape) != 3:
            return
        members = adversaries(run, run.attack)
        if members and (rows := stages(run, run.attack, members)):
            save(_sheet(rows), folder / TRIGGER, dpi=DPI)


def adversaries(run: VerticalRun, attack: VerticalAttack) -> dict[int, Adversary]:
    """Return the adversaries as they kept themselves after the last round; those that did not are left out."""
    found: dict[int, Adversary] = {}
    task, rows, held = run.task, run.known(attack), run.held(sorted(run.settings.malicious))
    for client in held:
        kept = run.kept(client).items()
        memory = {name.removeprefix(MEMORY): each for name, each in kept if name.startswith(MEMORY)}
        if memory:
            view = View(
                party=client,
                x=run.records(client)[0].in_order,
                shared={},
                blocks=held,
                sample_shape=task.sample_shape,
                known=rows,
                labels=task.train.y[rows],
                target=attack.target,
                num_classes=task.num_classes,
            )
            found[client] = attack.recalled(view, memory)
    return found


def stages(run: VerticalRun, attack: VerticalAttack, members: dict[int, Adversary]) -> list[tuple[str, Tensor]]:
    """Return test samples (n, C, H, W) as they are, with the trigger, replaced, and both, each with what it is called.

    Stages that change nothing are left out; there is none at all of an attack that changes no pixel.
    """
    task, source = run.task, generator(run.settings.seed, "pictures")
    chosen = rows_to_attack(task.test.y, attack.target, SHOWN, source)
    whole = task.samples("test", chosen).x

    def changed(*verbs: str) -> Tensor:
        flat = whole.flatten(1).clone()
        for client, member in members.items():
            columns = list(run.blocks[client])
            for verb in verbs:
                flat[:, columns] = getattr(member, verb)(flat[:, columns], source)
        return flat.view_as(whole)

    found = [
        ("with the trigger, as when the model is used", changed("triggers")),
        ("the adversaries' parts replaced, no trigger", changed("replaces")),
        ("replaced, with the trigger, as poisoned samples are in training", changed("replaces", "triggers")),
    ]
    different = [(words, images) for words, images in found if not torch.equal(images, whole)]
    return [("test samples of other classes", whole), *different] if different else []


def _sheet(rows: list[tuple[str, Tensor]]) -> Figure:
    """Draw each stage as a row, every image at a whole multiple of its pixels."""
    count, _, tall, wide = rows[0][1].shape
    scale = scale_of(tall, wide)
    tall, wide = tall * scale, max(wide * scale, SIDE)
    sheet, top = Sheet(), MARGIN
    for words, images in rows:
        sheet.text(MARGIN, top, [words[:1].upper() + words[1:]], HEADING)
        top += LINE + 8
        for column, image in enumerate(images):
            sheet.image(MARGIN + column * (wide + GAP), top, image, scale)
        top += tall + GAP
    return sheet.figure(2 * MARGIN + count * wide + (count - 1) * GAP, top)
