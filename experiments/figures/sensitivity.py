"""Accuracy and attack success rate against each of several parameters, the others held where most cells have them.

Paper: X. Wang, Dimitriadis, Koyejo, Tople, "Invariant Aggregator for Defending against Federated Backdoor Attacks",
AISTATS 2024, Figure 6 and Appendix D.5: the masking threshold tau, the trim level alpha, and fewer clients per round.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from thornbed.experiments.figures import Drawing
from thornbed.experiments.figures._page import DOTTED, FAINT, legend, named, page
from thornbed.experiments.runs.finished import FinishedRun
from thornbed.flower_apps.records.curves import ACCURACY, ATTACK
from thornbed.flower_apps.records.folder import WHEREABOUTS
from thornbed.flower_apps.settings import Resolved, Settings, plugins

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

METRICS: Mapping[str, tuple[str, str, Any, str]] = {  # name, colour, dashes and mark
    "accuracy": ("accuracy", ACCURACY, "-", "o"),
    "attack_success_rate": ("attack success", ATTACK, (0, (5, 2)), "s"),
}
SPOKEN = {
    "tau": "masking threshold τ",
    "alpha": "trim level α (share of a tail)",
    "clients_per_round": "clients per round",
}
# What a round of another size brings with it, and is no difference of its own.
FOLLOWING = {"clients_per_round": ("malicious_per_round", "min_replies"), "num_clients": ("num_malicious",)}


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Draw a panel for each of `parameters`: a setting, or an option of the strategy, that is a number.

    A panel has the cells in which every other parameter has its most frequent value (of equally frequent ones, the
    first); the cells must differ in the parameters and their seed alone.

    The table has a row for each parameter and value, with the mean, the standard deviation of the sample (NaN for one
    seed) of both rates, and the number of seeds.
    """

    parameters: tuple[str, ...] = ("tau", "alpha", "clients_per_round")

    needs_cells: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.parameters or len(set(self.parameters)) < len(self.parameters):
            raise ValueError(f"sensitivity needs parameters, each once: parameters = {self.parameters}")

    def check(self, cells: Sequence[Resolved]) -> None:
        """Raise ValueError where a parameter is no number of every cell or has one value, or cells differ otherwise."""
        points = [self._point(settings) for settings in cells]
        centre = self._centre(points)
        for place, parameter in enumerate(self.parameters):
            values = {point[place] for point in points if _beside(point, centre, place)}
            if len(values) < 2:
                middle = ", ".join(f"{name} = {value:g}" for name, value in zip(self.parameters, centre, strict=True))
                raise ValueError(
                    f"sensitivity needs two values of {parameter} or more around {middle}: values = {sorted(values)}"
                )
        if odd := self._other_differences(cells):
            raise ValueError(
                f"sensitivity needs cells that differ in {', '.join(self.parameters)} and their seed alone: they also "
                f"differ in {', '.join(odd)}"
            )

    def draw(self, runs: Sequence[FinishedRun]) -> Drawing:
        """Return the curves of all runs."""
        import pandas as pd

        points = [self._point(run.settings) for run in runs]
        centre = self._centre(points)
        parts = []
        for place, parameter in enumerate(self.parameters):
            rows = [
                {"value": point[place], **{name: run.metrics[name] for name in METRICS}}
                for point, run in zip(points, runs, strict=True)
                if _beside(point, centre, place)
            ]
            groups = pd.DataFrame(rows).astype(dict.fromkeys(METRICS, float)).groupby("value")
            columns = {"parameter": parameter, "seeds": groups.size()}
            for name in METRICS:
                columns |= {name: groups[name].mean(), f"{name}_std": groups[name].std(ddof=1)}
            part = pd.DataFrame(columns).reset_index()
            parts.append(part[["parameter", "value", *(name for name in part if name not in ("parameter", "value"))]])
        table = pd.concat(parts, ignore_index=True)
        return Drawing(self._picture(table, centre), {"": table})

    def _point(self, settings: Resolved) -> tuple[float, ...]:
        return tuple(_value(settings, parameter) for parameter in self.parameters)

    def _centre(self, points: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
        """Return the most frequent value of each parameter."""
        return tuple(Counter(values).most_common(1)[0][0] for values in zip(*points, strict=True))

    def _other_differences(self, cells: Sequence[Resolved]) -> list[str]:
        """Return the settings in which cells differ, but for the parameters and what follows from them."""
        ours = {"seed", *WHEREABOUTS, *self.parameters}
        ours |= {name for parameter in self.parameters for name in FOLLOWING.get(parameter, ())}
        kinds: dict[str, set[str]] = {}
        for settings in cells:
            values = {name: value for name, value in settings.model_dump().items() if name not in ours}
            spec = plugins.parse(settings.strategy)
            values["strategy"] = [
                spec.name,
                sorted((k, v) for k, v in spec.options.items() if k not in self.parameters),
            ]
            for name, value in values.items():
                kinds.setdefault(name, set()).add(repr(value))
        return [name for name, values in kinds.items() if len(values) > 1]

    def _picture(self, table: pd.DataFrame, centre: Sequence[float]) -> Figure:
        from matplotlib.lines import Line2D

        figure, [panels] = page([[""] * len(self.parameters)], panel=(3.4, 3.0), sharey=True)
        for axes, parameter, middle in zip(panels, self.parameters, centre, strict=True):
            shown = table[table["parameter"] == parameter]
            axes.axvline(middle, color=FAINT, linewidth=0.9, linestyle=DOTTED, zorder=0)
            for name, (_, color, dash, marker) in METRICS.items():
                spread = shown[f"{name}_std"].fillna(0.0)
                down, up = np.minimum(spread, shown[name]), np.minimum(spread, 1 - shown[name])  # rates end at 0 and 1
                axes.errorbar(
                    shown["value"], shown[name], [down, up], color=color, linestyle=dash, linewidth=1.8, marker=marker,
                    markersize=4.5, capsize=3, elinewidth=1,
                )  # fmt: skip
            axes.set_xticks(shown["value"].tolist())
            axes.set_xticklabels([f"{value:g}" for value in shown["value"]])
            named(axes, x=_spoken(parameter))
        panels[0].set_ylim(-0.03, 1.03)
        named(panels[0], y="rate on the test set")
        keys = [Line2D([], [], color=c, linestyle=d, marker=m, label=label) for label, c, d, m in METRICS.values()]
        held = Line2D([], [], color=FAINT, linewidth=0.9, linestyle=DOTTED, label="value in the other panels")
        legend(figure, [*keys, held])
        return figure


def _value(settings: Resolved, parameter: str) -> float:
    """Return a setting, or an option of the strategy as it is written or by its default; raises ValueError."""
    spec = plugins.parse(settings.strategy)
    if parameter in Settings.model_fields:
        value: Any = getattr(settings, parameter)
    elif parameter in spec.options:
        value = spec.options[parameter]
    else:
        defaults = {option.name: option.default for option in plugins.describe("strategy", spec.name).options}
        if parameter not in defaults:
            raise ValueError(f"sensitivity finds no setting and no option of {spec.name} called {parameter}")
        value = ast.literal_eval(defaults[parameter] or "None")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"sensitivity needs numbers: {parameter} = {value!r}")
    return value


def _beside(point: Sequence[float], centre: Sequence[float], place: int) -> bool:
    """Tell whether a point lies at the centre in all parameters but the one at `place`."""
    return all(one == other for at, (one, other) in enumerate(zip(point, centre, strict=True)) if at != place)


def _spoken(parameter: str) -> str:
    return SPOKEN.get(parameter, parameter.replace("_", " "))
