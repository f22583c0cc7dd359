"""The loss of the final model and around it, the way an attacker goes and at random, on honest and on attacked data.

Paper: X. Wang, Dimitriadis, Koyejo, Tople, "Invariant Aggregator for Defending against Federated Backdoor Attacks",
AISTATS 2024, Figure 4 and Appendix D.1.

The paper's landscapes go along a malicious and a random gradient, for edge cases that appear on honest clients with
probability 0, 15 and 30%; distances are measured by the gradient's norm, and distance 0 is a minimum. The paper says
neither how far it goes, nor how the random gradients are drawn, nor whose loss it is: here it is, above, that of what
the honest clients train on (Section 4.1 speaks of their loss), and below, that of the attacked test samples with the
labels that the attacker wants. The minimum is where the run's model ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from thornbed.experiments.figures import Drawing, check_backdoor
from thornbed.experiments.figures._page import DASHES, PALETTE, legend, named, page
from thornbed.experiments.runs.finished import FinishedRun
from thornbed.flower_apps.settings import Resolved
from thornbed.protocol.randomness import generator
from thornbed.tasks import Samples

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

DIRECTIONS = {"malicious": "along the malicious gradient", "random": "along random directions"}
DATA = {"honest": "Honest clients' data", "backdoor": "Attacked test samples"}
STEPS = "distance from the final model (norms of the malicious gradient)"
# One side of a valley can be so steep that on a linear axis the other could not be seen.
STEEP = 1000


@dataclass(frozen=True, kw_only=True)
class LossLandscape:
    """Walk from -reach to reach, in norms of the malicious gradient, in points_per_side steps each way.

    The malicious gradient is what one attacker, the one of the highest number, would send next; at distance 1 the model
    has the attacker's own parameters. Of random directions `num_random` are drawn, normal in every parameter and of the
    same norm. Running statistics of batch norm stay where they are. The loss is that of `num_samples` of the honest
    clients' samples, drawn without replacement (all, where there are not so many), and of all attacked test samples.

    The table has a row for each run, seed, data, direction, draw and distance, with the norm of the malicious gradient
    (L2) and the loss (mean cross-entropy, nats).
    """

    reach: float = 1.0
    points_per_side: int = 8
    num_random: int = 3
    num_samples: int = 5000

    needs_cells: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.reach < float("inf"):
            raise ValueError(f"loss_landscape needs a finite reach > 0: reach = {self.reach}")
        for option in ("points_per_side", "num_random", "num_samples"):
            if getattr(self, option) < 1:
                raise ValueError(f"loss_landscape needs {option} >= 1: {option} = {getattr(self, option)}")

    def check(self, cells: Sequence[Resolved]) -> None:
        """Raise ValueError where a cell has no attack on data."""
        check_backdoor("loss_landscape", cells)

    def draw(self, runs: Sequence[FinishedRun]) -> Drawing:
        """Return the landscapes of all runs: the mean over draws and seeds, and from the least to the most a band."""
        import pandas as pd

        table = pd.DataFrame([row for run in runs for row in self._rows(run)])
        return Drawing(self._picture(table), {"": table})

    def _rows(self, run: FinishedRun) -> Iterator[Mapping[str, Any]]:
        gradient = run.update(max(run.attackers))
        norm = float(torch.linalg.vector_norm(gradient.double()))
        walks = [("malicious", 0, gradient)]
        walks += [("random", draw, self._direction(run, draw, norm)) for draw in range(self.num_random)]
        distances = np.linspace(-self.reach, self.reach, 2 * self.points_per_side + 1)
        for data, samples in {"honest": self._honest(run), "backdoor": run.backdoor}.items():
            for direction, draw, step in walks:
                for distance in distances.tolist():
                    yield {
                        "run": run.name,
                        "seed": run.settings.seed,
                        "data": data,
                        "direction": direction,
                        "draw": draw,
                        "distance": distance,
                        "gradient_norm": norm,
                        "loss": run.loss(samples, distance * step),
                    }

    def _direction(self, run: FinishedRun, draw: int, norm: float) -> Tensor:
        """Return a random direction (d,) of that norm: the same one for runs of one seed and model."""
        noise = torch.randn(run.dimension, generator=generator(run.settings.seed, "landscape", draw))
        return noise * (norm / float(torch.linalg.vector_norm(noise.double())))

    def _honest(self, run: FinishedRun) -> Samples:
        samples = run.honest_data()
        order = torch.randperm(len(samples), generator=generator(run.settings.seed, "landscape", "samples"))
        return samples.select(order[: self.num_samples])

    def _picture(self, table: pd.DataFrame) -> Figure:
        titles = [[f"{heading}, {way}" for way in DIRECTIONS.values()] for heading in DATA.values()]
        figure, grid = page(titles, panel=(4.7, 2.9), sharex=True, sharey="row")
        lines = {}
        for panels, data in zip(grid, DATA, strict=True):
            for axes, direction in zip(panels, DIRECTIONS, strict=True):
                shown = table[(table["data"] == data) & (table["direction"] == direction)]
                for place, (name, points) in enumerate(shown.groupby("run", sort=False)):
                    color, dash = PALETTE[place % len(PALETTE)], DASHES[place % len(DASHES)]
                    losses = points.groupby("distance")["loss"]
                    low, mean, high = losses.min(), losses.mean(), losses.max()
                    axes.fill_between(low.index, low, high, color=color, alpha=0.15, linewidth=0)
                    [line] = axes.plot(mean.index, mean, color=color, linestyle=dash, linewidth=1.8, label=str(name))
                    lines[name] = line
                axes.axvline(0, color="#999999", linewidth=0.8, zorder=0)
            every = table.loc[table["data"] == data, "loss"]
            log = bool(every.min() > 0 and every.max() > STEEP * every.min())
            panels[0].set_yscale("log" if log else "linear")
            named(panels[0], y=f"cross-entropy (nats{', logarithmic' if log else ''})")
        for axes in grid[-1]:
            named(axes, x=STEPS)
        legend(figure, list(lines.values()))
        return figure
