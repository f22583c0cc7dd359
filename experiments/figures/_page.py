"""The page that the figures of a sweep are drawn on: panels side by side, in the look of a run's own curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from thornbed.flower_apps.records.curves import ACCURACY, ATTACK, plain
from thornbed.flower_apps.records.image_sheet import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by colour-blind readers; with dashes, in print too.
PALETTE = (ACCURACY, ATTACK, "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.2, 1.4)), (0, (6, 2, 1.2, 2)), (0, (9, 3)), (0, (3, 1.2)))
FAINT = "#777777"
DOTTED = (0, (2, 2))


def page(titles: Sequence[Sequence[str]], *, panel: tuple[float, float], **axes: Any) -> tuple[Figure, np.ndarray]:
    """Return a figure and its axes (rows, columns), one panel for each title; `panel` is (width, height) in inches.

    `axes` are options of matplotlib's `subplots`, such as sharex.
    """
    from matplotlib.figure import Figure

    rows, columns = len(titles), len(titles[0])
    # A line of room above for the legend, which lies outside the panels and so covers nothing.
    figure = Figure(figsize=(columns * panel[0], rows * panel[1] + 0.35), facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.06)
    grid: np.ndarray = figure.subplots(rows, columns, squeeze=False, **axes)
    for panels, texts in zip(grid, titles, strict=True):
        for one, text in zip(panels, texts, strict=True):
            plain(one)
            one.set_title(text, loc="left", fontsize=10, color=INK)
    return figure, grid


def named(axes: Axes, *, x: str | None = None, y: str | None = None) -> None:
    """Name the quantities along the sides; None leaves a side as it is."""
    if x is not None:
        axes.set_xlabel(x, color=INK, fontsize=9.5)
    if y is not None:
        axes.set_ylabel(y, color=INK, fontsize=9.5)


def legend(figure: Figure, handles: Sequence[Any], columns: int | None = None) -> None:
    """Put one legend for all panels above them, at the left."""
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=columns or len(handles),
        frameon=False,
        fontsize=9.5,
        labelcolor=INK,
        handlelength=2.8,
        columnspacing=1.8,
    )
