"""Pictures of a run: its curves by round, and test images before and after the attack.

Pictures are drawn with matplotlib's object interface, so pyplot's state and the user's backend and settings stay as
they are. matplotlib is imported inside the functions: the command line imports this module and should start at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from thornbed.attacks.data import DataAttack
from thornbed.flower_apps.records.curves import CURVES, curves
from thornbed.flower_apps.records.folder import Folder
from thornbed.flower_apps.records.image_sheet import DPI, GAP, HEADING, LINE, MARGIN, SIDE, Sheet, scale_of, wrapped
from thornbed.protocol.whole_files import whole
from thornbed.tasks import Samples, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRIGGER = "trigger.png"
NUM_PAIRS = 6
# An attack may qualify for one class of a hundred only; beyond this many samples the search is given up.
TRIES = 1000

Pair = tuple[Tensor | None, int | None, Tensor, int]
"""A clean image (C, H, W) and its label, both None where there is none; its attacked image and the label wanted."""


def write_pictures(folder: Path, task: Task, attack: DataAttack | None) -> None:
    """Write curves.png from the rounds in `folder`, and trigger.png where an attack works on images.

    Nothing is written where there is nothing to show: no round yet, or no test sample that the attack qualifies for.
    """
    from matplotlib import style

    # What the user's matplotlibrc says (a theme, LaTeX) would make the same run end in other files.
    with style.context("default"):
        lines = Folder(folder).lines()
        if lines:
            save(curves(lines), folder / CURVES, dpi=150)
        pairs = attacked_pairs(task, attack) if attack is not None and task.modality == "image" else []
        if pairs:
            save(_grid(pairs, task.class_names), folder / TRIGGER, dpi=DPI)


def save(figure: Figure, path: Path, dpi: int) -> None:
    """Write a picture as PNG, whole or not at all; the same figure gives the same bytes."""
    with whole(path) as part:
        # Without "Software" the file says nothing about where and when it was made.
        figure.savefig(part, format="png", dpi=dpi, metadata={"Software": None}, pil_kwargs={"optimize": True})


def attacked_pairs(task: Task, attack: DataAttack, count: int = NUM_PAIRS) -> list[Pair]:
    """Return up to `count` test images with their attacked counterparts, of as many classes as there are.

    The counterpart of a sample is what `measure` makes of it alone. An attack that measures with images of its own
    answers with many of them, or with the same one for every sample: then there is no clean image beside them.
    """
    found: list[Pair] = []
    for clean, label in _one_of_each_class(task):
        attacked = attack.measure(Samples(clean[None], torch.tensor([label])))
        if attacked is None or len(attacked) == 0:
            continue
        if len(attacked) > 1 or attacked.x.shape[1:] != clean.shape:
            rows = torch.linspace(0, len(attacked) - 1, min(count, len(attacked))).round().long()
            return [(None, None, attacked.x[row], int(attacked.y[row])) for row in rows]
        found.append((clean, label, attacked.x[0], int(attacked.y[0])))
        if len(found) == count:
            break
    if len(found) > 1 and all(torch.equal(pair[2], found[0][2]) for pair in found) and not _same_pixels(found):
        return [(None, None, *found[0][2:])]
    return found


def _one_of_each_class(task: Task) -> Iterator[tuple[Tensor, int]]:
    """Yield test samples, decoded: the first of every class, then the second of every class, and so on."""
    labels = task.test.y.numpy()
    turn = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        turn[labels == label] = np.arange((labels == label).sum())
    rows = torch.from_numpy(np.lexsort((labels, turn))[:TRIES])
    samples = task.samples("test", rows)
    yield from zip(samples.x, samples.y.tolist())


def _same_pixels(pairs: Iterable[Pair]) -> bool:
    return all(clean is not None and torch.equal(clean, attacked) for clean, _, attacked, _ in pairs)


def _grid(pairs: Sequence[Pair], names: Sequence[str]) -> Figure:
    """Draw the pairs in columns, every image at a whole multiple of its pixels."""
    paired = pairs[0][0] is not None
    rows = [[(image, f"wanted: {_name(label, names)}") for _, _, image, label in pairs]]
    if paired:
        clean = [(image, label) for image, label, _, _ in pairs if image is not None]
        rows.insert(0, [(image, f"true: {_name(label, names)}") for image, label in clean])
    tall, wide = (max(image.shape[axis] for row in rows for image, _ in row) for axis in (1, 2))
    scale = scale_of(tall, wide)
    tall, wide = max(tall * scale, 1), max(wide * scale, SIDE)
    titles = [[wrapped(text, wide)[:3] for _, text in row] for row in rows]
    headers = [LINE * max(len(lines) for lines in row) + 5 for row in titles]
    heading = wrapped(_heading(pairs, paired), len(pairs) * (wide + GAP), HEADING)
    top = MARGIN + LINE * len(heading) + 8
    width = 2 * MARGIN + len(pairs) * wide + (len(pairs) - 1) * GAP
    height = top + sum(headers) + len(rows) * tall + (len(rows) - 1) * GAP + MARGIN
    sheet = Sheet()
    sheet.text(MARGIN, MARGIN, heading, HEADING)
    for images, lines, header in zip(rows, titles, headers):
        for column, ((image, _), title) in enumerate(zip(images, lines)):
            left = MARGIN + column * (wide + GAP)
            sheet.text(left, top + header - 5 - LINE * len(title), title)
            sheet.image(left, top + header, image, scale)
        top += header + tall + GAP
    return sheet.figure(width, height)


def _heading(pairs: Sequence[Pair], paired: bool) -> str:
    if not paired:
        return "Attacked images only: the attack brings images of its own"
    if _same_pixels(pairs):
        return "Clean above attacked: the attack changes labels, no pixels"
    return "Clean above attacked"


def _name(label: int | None, names: Sequence[str]) -> str:
    return names[label] if label is not None and label < len(names) else str(label)
