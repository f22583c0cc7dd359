"""Pictures of a run: its curves by round, and test images before and after the attack; a layout for curves of many.

Pictures are drawn with matplotlib's object interface, so pyplot's state and the user's backend and settings stay as
they are. matplotlib is imported inside the functions: the command line imports this module and should start at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from attacks.data import DataAttack
from flower_apps.records import Folder
from flower_apps.sheet import DPI, GAP, HEADING, INK, LINE, MARGIN, SIDE, Sheet, scale_of, wrapped
from tasks import Samples, Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES, TRIGGER = "curves.png", "trigger.png"
NUM_PAIRS = 6
# An attack may qualify for one class of a hundred only; beyond this many samples the search is given up.
TRIES = 1000
# Blue and vermilion of Okabe and Ito's palette: told apart by colour-blind readers, and by their line styles in print.
ACCURACY, ATTACK, LOSS, GRID = "#0072b2", "#d55e00", "#444444", "#dddddd"

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
            save(_curves(lines), folder / CURVES, dpi=150)
        pairs = attacked_pairs(task, attack) if attack is not None and task.modality == "image" else []
        if pairs:
            save(_grid(pairs, task.class_names), folder / TRIGGER, dpi=DPI)


def save(figure: Figure, path: Path, dpi: int) -> None:
    """Write a picture as PNG; the same figure gives the same bytes."""
    # Without "Software" the file says nothing about where and when it was made.
    figure.savefig(path, format="png", dpi=dpi, metadata={"Software": None}, pil_kwargs={"optimize": True})


def _curves(lines: Sequence[Mapping[str, Any]]) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7.2, 4.8), facecolor="white")
    rates, loss = figure.subplots(2, 1, sharex=True, height_ratios=(2.6, 1))
    figure.subplots_adjust(left=0.085, right=0.76, top=0.925, bottom=0.11, hspace=0.16)
    rounds = [int(line["round"]) for line in lines]
    accuracy, success = _values(lines, "accuracy"), _values(lines, "attack_success_rate")
    ends = []
    for name, values, color, dash in (
        ("accuracy", accuracy, ACCURACY, "-"),
        ("attack success", success, ATTACK, (0, (5, 2))),
    ):
        if np.isfinite(values).any():
            _line(rates, rounds, values, color, dash)
            last = int(np.flatnonzero(np.isfinite(values))[-1])
            ends.append((float(values[last]), f"{name} {values[last]:.3f}", color, rounds[last]))
    heights = apart([end[0] for end in ends], 0.07)
    for height, (_, text, color, at) in zip(heights, ends):
        rates.annotate(
            text, (at, height), (9, 0), textcoords="offset points", color=color, va="center", annotation_clip=False
        )
    rates.set_ylim(-0.03, 1.03)
    rates.set_title("Rate on the test set", loc="left", fontsize=10, color=INK)
    _loss(loss, rounds, _values(lines, "loss"))
    loss.set_xlabel("round", color=INK)
    loss.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1, steps=(1, 2, 5, 10)))
    loss.set_xlim(min(rounds) - 0.5 * (len(rounds) == 1), max(rounds) + 0.5 * (len(rounds) == 1))
    for axes in (rates, loss):
        plain(axes)
    return figure


def plain(axes: Axes) -> None:
    """Give axes the look of this house: faint lines across, two sides, small marks."""
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(colors=INK, labelsize=9, length=3, color="#999999")


def _loss(axes: Axes, rounds: Sequence[int], values: np.ndarray) -> None:
    finite = values[np.isfinite(values)]
    # A run that diverges would press all its other rounds flat.
    log = len(finite) > 0 and finite.min() > 0 and finite.max() > 1000 * finite.min()
    _line(axes, rounds, values, LOSS, "-")
    axes.set_yscale("log" if log else "linear")
    axes.set_title("Test loss" + (", logarithmic" if log else ""), loc="left", fontsize=10, color=INK)
    if not log:
        axes.set_ylim(bottom=min(0.0, float(finite.min())) if len(finite) else 0.0)
    if len(finite):
        last = int(np.flatnonzero(np.isfinite(values))[-1])
        axes.annotate(
            f"loss {values[last]:.3g}", (rounds[last], values[last]), (9, 0), textcoords="offset points",
            color=LOSS, va="center", annotation_clip=False,
        )  # fmt: skip


def _line(axes: Axes, rounds: Sequence[int], values: np.ndarray, color: str, dash: Any) -> None:
    # Marks show single rounds and those between gaps; many would hide the line.
    marker = "o" if len(rounds) <= 16 else None
    axes.plot(rounds, values, color=color, linestyle=dash, linewidth=1.8, marker=marker, markersize=3.2, clip_on=False)


def _values(lines: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """Return a value per round (n,), NaN where it was not measured or is not finite."""
    found = [line.get(name) for line in lines]
    values = np.array([math.nan if value is None else float(value) for value in found])
    return np.where(np.isfinite(values), values, math.nan)


def apart(heights: Sequence[float], distance: float, low: float = 0.0, high: float = 1.0) -> list[float]:
    """Move heights up, then down from `high`, until labels at them are at least `distance` apart, in the same order.

    They stay in [low, high] as long as they fit in there at all; equal heights keep the order they come in.
    """
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    moved = [heights[index] for index in order]
    for index in range(len(moved)):
        moved[index] = max(moved[index], low if index == 0 else moved[index - 1] + distance)
    for index in reversed(range(len(moved))):
        moved[index] = min(moved[index], high if index == len(moved) - 1 else moved[index + 1] - distance)
    return [moved[order.index(index)] for index in range(len(heights))]


@dataclass(frozen=True)
class Curve:
    """A curve by its number: (round, rate or gap) by round, where it ends, where its number stands if anywhere, and
    (round, low, high) of the band around it.
    """

    run: int
    points: Sequence[tuple[float, float | None]]
    end: tuple[float, float]
    label: float | None
    band: Sequence[tuple[float, float, float]] = ()


@dataclass(frozen=True)
class Panel:
    """Curves of several runs over rounds 0 to `end`, with a mark every `step` rounds."""

    title: str
    end: float
    step: int
    curves: Sequence[Curve]


def panel(
    title: str,
    runs: Mapping[int, Sequence[tuple[float, float | None]]],
    distance: float = 0.065,
    bands: Mapping[int, Sequence[tuple[float, float, float]]] | None = None,
) -> Panel:
    """Lay out a rate in [0, 1] of several runs, by their numbers; runs without any value are left out.

    The numbers at the ends of curves are `distance` apart where they would stand below each other, in the right
    margin, and left out where there is no room for them.
    """
    shown = {run: points for run, points in runs.items() if any(rate is not None for _, rate in points)}
    ends = {run: next((x, y) for x, y in reversed(points) if y is not None) for run, points in shown.items()}
    end = max([1.0, *(x for points in shown.values() for x, _ in points)])
    step = next(unit * 10**power for power in range(400) for unit in (1, 2, 5) if end <= 6 * unit * 10**power)
    margin = [run for run in shown if ends[run][0] == end]
    labels: dict[int, float | None] = {run: y for run, (_, y) in ends.items()}
    room = len(margin) * distance <= 1
    labels |= dict(zip(margin, apart([ends[run][1] for run in margin], distance) if room else [None] * len(margin)))
    bands = bands or {}
    curves = [Curve(run, points, ends[run], labels[run], bands.get(run, ())) for run, points in shown.items()]
    return Panel(title, end, step, curves)


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
