"""Pictures of a multitask run: errors and duality gap by round, and how alike the nodes' models are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from thornbed.flower_apps.records.curves import ACCURACY, ATTACK, CURVES, LOSS, Drawn, curves
from thornbed.flower_apps.records.folder import Folder
from thornbed.flower_apps.records.image_sheet import INK
from thornbed.flower_apps.records.plots import save
from thornbed.tasks.multitask import Loss

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RELATIONS = "relations.png"


def write_pictures(folder: Path, weights: NDArray[np.float64], names: Sequence[str], loss: Loss) -> None:
    """Write curves.png from the rounds in `folder`, and relations.png from the final weights (d, m)."""
    from matplotlib import style

    metric, words = ("error", "Error rate") if loss == "hinge" else ("rmse", "RMSE")
    with style.context("default"):
        if lines := Folder(folder).lines():
            drawn = (
                Drawn(f"target_{metric}", "targets", ATTACK, (0, (5, 2))),
                Drawn(metric, "all nodes", ACCURACY),
            )
            gap = Drawn("duality_gap", "gap", LOSS, logarithmic=True)
            figure = curves(lines, drawn, gap, (f"{words} on the test points of the nodes", "Duality gap"), whole=False)
            save(figure, folder / CURVES, dpi=150)
        save(relations(weights, names), folder / RELATIONS, dpi=150)


def cosines(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cosine between the weights (d, m) of each two nodes, (m, m); 0 for a node whose weights are 0."""
    lengths = np.linalg.norm(weights, axis=0)
    unit = weights / np.where(lengths > 0, lengths, 1.0)
    return np.asarray(unit.T @ unit, dtype=np.float64)


def relations(weights: NDArray[np.float64], names: Sequence[str]) -> Figure:
    """Draw the cosines between the weights (d, m) of each two nodes, from -1 to 1."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 4.8), facecolor="white")
    axes = figure.subplots()
    image = axes.imshow(cosines(weights), vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest")
    step = -(-len(names) // 24)  # more names would write over each other
    ticks = range(0, len(names), step)
    axes.set_xticks(ticks, [names[tick] for tick in ticks], rotation=90, fontsize=7, color=INK)
    axes.set_yticks(ticks, [names[tick] for tick in ticks], fontsize=7, color=INK)
    axes.set_title("How alike the models of the nodes are (cosine)", loc="left", fontsize=10, color=INK)
    figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    figure.tight_layout()
    return figure
