"""Pictures of a vertical run: rates and loss by round, and samples with the trigger and as adversaries made them up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from thornbed.attacks.vertical import Adversary, VerticalAttack, View
from thornbed.clients.vfl import MEMORY
from thornbed.flower_apps.records.curves import ACCURACY, ATTACK, CURVES, Drawn, curves
from thornbed.flower_apps.records.folder import Folder
from thornbed.flower_apps.records.image_sheet import DPI, GAP, HEADING, LINE, MARGIN, SIDE, Sheet, scale_of
from thornbed.flower_apps.records.plots import TRIGGER, save
from thornbed.flower_apps.schemes.vertical.run import VerticalRun
from thornbed.protocol.randomness import generator
from thornbed.tasks.metrics.vertical import rows_to_attack

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
