"""How alike the models of the nodes of multitask learning are: a matrix of cosines for each run.

Paper: G. Sun et al., "Data Poisoning Attacks on Federated Machine Learning", IEEE Internet of Things Journal 2022,
Figure 4, which draws correlations of nodes and says of indirect attacks that they need them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from thornbed.experiments.figures import Drawing
from thornbed.experiments.figures._page import named, page
from thornbed.experiments.runs.finished import FinishedRun
from thornbed.flower_apps.schemes.multitask import pictures as multitask_pictures
from thornbed.flower_apps.schemes.multitask import scheme as multitask
from thornbed.flower_apps.schemes.multitask.server import MODEL
from thornbed.flower_apps.schemes.scheme import scheme_of
from thornbed.flower_apps.settings import Resolved, RunFailed
from thornbed.tasks.sources.archive import read_archive


@dataclass(frozen=True, kw_only=True)
class RelationMatrices:
    """Draw a matrix (m, m) of the cosines between the nodes' weights for each cell of the first seed.

    The table has a row for each cell, with the mean of the absolute cosines of different nodes.
    """

    needs_cells: ClassVar[bool] = True

    def check(self, cells: Sequence[Resolved]) -> None:
        """Raise ValueError where a cell is no multitask learning."""
        for settings in cells:
            if scheme_of(settings) is not multitask.SCHEME:
                raise ValueError(f"relation_matrices needs multitask learning in every cell: {settings.strategy}")

    def draw(self, runs: Sequence[FinishedRun]) -> Drawing:
        """Return the matrices of all runs of the first seed."""
        import pandas as pd

        first = [run for run in runs if run.settings.seed == runs[0].settings.seed]
        rows = []
        tasks = [run.settings.task for run in first]
        titles = tasks if len(set(tasks)) == len(tasks) else [run.name for run in first]
        figure, [panels] = page([titles], panel=(3.0, 3.0))
        for axes, run in zip(panels, first, strict=True):
            cosines = _cosines(run)
            axes.imshow(cosines, vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest")
            axes.grid(visible=False)
            named(axes, x="node")
            apart = np.abs(cosines[~np.eye(len(cosines), dtype=bool)])
            rows.append({"cell": run.name, "nodes": len(cosines), "mean_absolute_cosine": float(apart.mean())})
        return Drawing(figure, {"": pd.DataFrame(rows)})


def _cosines(run: FinishedRun) -> np.ndarray:
    path = run.folder.path / MODEL
    try:
        return multitask_pictures.cosines(read_archive(path, ("W",))["W"])
    except (FileNotFoundError, ValueError) as error:
        raise RunFailed(str(error)) from None
