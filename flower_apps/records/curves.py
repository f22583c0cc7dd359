"""Curves over rounds: those of one run as a picture, and a layout for those of many."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from thornbed.flower_apps.records.image_sheet import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES = "curves.png"
# Blue and vermilion of Okabe and Ito's palette: told apart by colour-blind readers, and by their line styles in print.
ACCURACY, ATTACK, LOSS, GRID = "#0072b2", "#d55e00", "#444444", "#dddddd"


@dataclass(frozen=True)
class Drawn:
    """A metric as a picture shows it: its name in the records, what stands at its end, its colour and dashes."""

    metric: str
    words: str
    color: str
    dash: Any = "-"
    logarithmic: bool = False


RATES = (Drawn("accuracy", "accuracy", ACCURACY), Drawn("attack_success_rate", "attack success", ATTACK, (0, (5, 2))))


def curves(
    lines: Sequence[Mapping[str, Any]],
    upper: Sequence[Drawn] = RATES,
    lower: Drawn = Drawn("loss", "loss", LOSS),
    titles: tuple[str, str] = ("Rate on the test set", "Test loss"),
    *,
    whole: bool = True,
) -> Figure:
    """Draw the metrics `upper` of a run by round, above `lower`, which is logarithmic where it has to be.

    With `whole` they have all of [0, 1]; otherwise they go from 0 to their largest after round 0, where nothing is
    learnt yet.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7.2, 4.8), facecolor="white")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2.6, 1))
    figure.subplots_adjust(left=0.085, right=0.76, top=0.925, bottom=0.11, hspace=0.16)
    rounds = [int(line["round"]) for line in lines]
    found = [(each, _values(lines, each.metric)) for each in upper]
    found = [(each, values) for each, values in found if np.isfinite(values).any()]
    high = 1.0
    if not whole:
        high = max([float(np.nanmax(values[1:])) for _, values in found if np.isfinite(values[1:]).any()], default=1.0)
    ends = []
    for each, values in found:
        _line(top, rounds, np.where(values <= 1.03 * high, values, math.nan), each.color, each.dash)
        last = int(np.flatnonzero(np.isfinite(values))[-1])
        ends.append((float(values[last]) / high, f"{each.words} {values[last]:.3f}", each.color, rounds[last]))
    heights = apart([end[0] for end in ends], 0.07)
    for height, (_, text, color, at) in zip(heights, ends):
        top.annotate(
            text,
            (at, height * high),
            (9, 0),
            textcoords="offset points",
            color=color,
            va="center",
            annotation_clip=False,
        )
    top.set_ylim(-0.03 * high, 1.03 * high)
    top.set_title(titles[0], loc="left", fontsize=10, color=INK)
    _small(bottom, rounds, _values(lines, lower.metric), lower, titles[1])
    bottom.set_xlabel("round", color=INK)
    bottom.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1, steps=(1, 2, 5, 10)))
    bottom.set_xlim(min(rounds) - 0.5 * (len(rounds) == 1), max(rounds) + 0.5 * (len(rounds) == 1))
    for axes in (top, bottom):
        plain(axes)
    return figure


def plain(axes: Axes) -> None:
    """Give axes the look of this house: faint lines across, two sides, small marks."""
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(colors=INK, labelsize=9, length=3, color="#999999")


def _small(axes: Axes, rounds: Sequence[int], values: np.ndarray, drawn: Drawn, title: str) -> None:
    finite = values[np.isfinite(values)]
    # A run that diverges would press all its other rounds flat.
    log = len(finite) > 0 and finite.min() > 0 and (drawn.logarithmic or finite.max() > 1000 * finite.min())
    _line(axes, rounds, np.where(values > 0, values, math.nan) if log else values, drawn.color, drawn.dash)
    axes.set_yscale("log" if log else "linear")
    axes.set_title(title + (", logarithmic" if log else ""), loc="left", fontsize=10, color=INK)
    if not log:
        axes.set_ylim(bottom=min(0.0, float(finite.min())) if len(finite) else 0.0)
    if len(finite):
        last = int(np.flatnonzero(np.isfinite(values))[-1])
        axes.annotate(
            f"{drawn.words} {values[last]:.3g}", (rounds[last], values[last]), (9, 0), textcoords="offset points",
            color=drawn.color, va="center", annotation_clip=False,
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
