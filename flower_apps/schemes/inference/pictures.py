"""The picture of a run of collaborative inference: how far purification moved what each agent sent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from thornbed.flower_apps.records.curves import ACCURACY, ATTACK, plain
from thornbed.flower_apps.records.image_sheet import INK
from thornbed.flower_apps.records.plots import save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOVED = "moved.png"


def write_pictures(folder: Path, answers: Mapping[str, NDArray[Any]], malicious: frozenset[int]) -> None:
    """Write moved.png from what `answers` says was moved, before and under the attack, by these agents."""
    from matplotlib import style

    told = {name: answers[f"moved_{name}"] for name in ("clean", "attacked") if f"moved_{name}" in answers}
    # Of a round in which no block could be used there is nothing to draw.
    blocks = {name: each for name, each in told.items() if np.isfinite(each).any()}
    if not any(np.nanmax(each) > 0 for each in blocks.values()):
        return  # nothing purifies
    with style.context("default"):
        save(moved(blocks, malicious), folder / MOVED, dpi=150)


def moved(blocks: Mapping[str, NDArray[np.float64]], malicious: frozenset[int]) -> Figure:
    """Draw for each agent the median of how far its blocks (n, M) were moved, with the middle 90% of them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.6), facecolor="white")
    axes = figure.subplots()
    looks = {"clean": (-0.14, ACCURACY, "before the attack"), "attacked": (0.14, ATTACK, "under the attack")}
    for name, each in blocks.items():
        shift, color, words = looks[name]
        agents = np.flatnonzero(np.isfinite(each).any(axis=0))
        low, middle, high = np.nanquantile(each[:, agents], [0.05, 0.5, 0.95], axis=0)
        axes.vlines(agents + shift, low, high, color=color, linewidth=1.8)
        axes.plot(agents + shift, middle, "o", color=color, markersize=5, label=words)
    count = next(iter(blocks.values())).shape[1]
    labels = [f"{agent}\nlies" if agent in malicious else str(agent) for agent in range(count)]
    axes.set_xticks(range(count), labels, color=INK)
    axes.set_yscale("symlog", linthresh=1.0)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("distance", color=INK)
    axes.set_xlabel("agent", color=INK)
    axes.set_title("How far purification moved what each agent sent", loc="left", fontsize=10, color=INK)
    axes.legend(frameon=False, fontsize=9)
    plain(axes)
    figure.tight_layout()
    return figure
