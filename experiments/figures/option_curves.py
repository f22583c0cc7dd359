"""Metrics against one number, a setting or an option: local steps, the weight of late layers, the ratio of poison.

Paper: J. Xu, C. Hong, J. Huang, L. Y. Chen, J. Decouchant, "AGIC: Approximate Gradient Inversion Attack on Federated
Learning", SRDS 2022, Figures 8 and 9; G. Sun et al., "Data Poisoning Attacks on Federated Machine Learning", IEEE
Internet of Things Journal 2022, Figures 5 to 7.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from thornbed.experiments.figures import Drawing
from thornbed.experiments.figures._page import DASHES, PALETTE, legend, named, page
from thornbed.experiments.runs.finished import FinishedRun
from thornbed.flower_apps.metrics import METRICS
from thornbed.flower_apps.records.folder import WHEREABOUTS
from thornbed.flower_apps.settings import NONE, SPECS, Resolved, Settings, plugins

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SPOKEN = {
    "ratio": "injected points, as a share of a source's own",
    "lambda1": "strength λ₁ of the relation",
    "num_malicious": "targets",
    "step": "step size η",
    "beta": "weight ratio β of the last convolution to the first",
    "batch_size": "images in a local step",
}
MARKS = ("o", "s", "^", "D", "v", "P")
PANEL = 4.0  # inches, and so are those of a legend: the line before a name, a letter of it, and a row
KEY, LETTER, ROW = 0.6, 0.07, 0.17


@dataclass(frozen=True, kw_only=True)
class OptionCurves:
    """Draw a panel for each of `metrics`, a curve for cells that are alike but for `x` and their seed.

    `x` is a setting, or an option of what the setting `of` names (attack, curious, strategy), that is a number in every
    cell.

    The table has a row for each curve and value of x, with the mean of each metric, its standard deviation of the
    sample (NaN for one seed), and the number of seeds.
    """

    x: str = "beta"
    metrics: tuple[str, ...] = ("psnr",)
    of: str = "curious"

    needs_cells: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if unknown := [name for name in self.metrics if name not in METRICS]:
            raise ValueError(f"option_curves knows no metric {unknown[0]}; there are {', '.join(METRICS)}")
        if not self.metrics:
            raise ValueError("option_curves needs one metric or more: metrics = ()")
        if self.of not in SPECS:
            raise ValueError(f"option_curves takes options of {', '.join(SPECS)}: of = {self.of}")

    def check(self, cells: Sequence[Resolved]) -> None:
        """Raise ValueError where a cell has nothing of the kind or no number x, or all have the same."""
        if any(getattr(settings, self.of) == NONE for settings in cells):
            raise ValueError(f"option_curves needs one in every cell: {self.of} = none")
        values = {self._value(settings) for settings in cells}
        if len(values) < 2:
            raise ValueError(f"option_curves needs two values of {self.x} or more: values = {sorted(values)}")

    def draw(self, runs: Sequence[FinishedRun]) -> Drawing:
        """Return the curves of all runs."""
        import pandas as pd

        names = self._names([run.settings for run in runs])
        rows = [
            {"curve": name, self.x: self._value(run.settings), **{m: run.metrics.get(m) for m in self.metrics}}
            for name, run in zip(names, runs, strict=True)
        ]
        frame = pd.DataFrame(rows).astype(dict.fromkeys(self.metrics, float))
        groups = frame.groupby(["curve", self.x], sort=False)
        columns: dict[str, Any] = {}
        for name in self.metrics:
            columns |= {name: groups[name].mean(), f"{name}_std": groups[name].std(ddof=1)}
        table = pd.DataFrame({**columns, "seeds": groups.size()}).reset_index()
        return Drawing(self._picture(table), {"": table})

    def _picture(self, table: pd.DataFrame) -> Figure:
        from matplotlib.lines import Line2D

        titles = [METRICS[name].heading for name in self.metrics]
        curves = list(dict.fromkeys(table["curve"]))
        wide = KEY + LETTER * max(map(len, curves))
        columns = min(len(curves), max(1, min(2, int(PANEL * len(titles) / wide))))
        rows = -(-len(curves) // columns)
        figure, [panels] = page([titles], panel=(PANEL, 2.5 + ROW * rows))
        keys = []
        for number, curve in enumerate(curves):
            turn = number + number // len(PALETTE)  # a colour that comes again has other dashes and another mark
            looks: dict[str, Any] = {
                "color": PALETTE[number % len(PALETTE)],
                "linestyle": DASHES[turn % len(DASHES)],
                "marker": MARKS[turn % len(MARKS)],
                "markersize": 4.5,
                "linewidth": 1.8,
            }
            points = table[table["curve"] == curve].sort_values(self.x)
            for axes, metric in zip(panels, self.metrics, strict=True):
                known = points[points[metric].notna()]
                if known.empty:
                    continue
                axes.errorbar(
                    known[self.x],
                    known[metric],
                    known[f"{metric}_std"].fillna(0.0),
                    capsize=3,
                    elinewidth=1,
                    **looks,
                )
            keys.append(Line2D([], [], label=curve, **looks))
        for axes, metric in zip(panels, self.metrics, strict=True):
            low, high = axes.get_ylim()
            if METRICS[metric].unit == "dB":  # where 0 means nothing, and less than two of them not much
                axes.set_ylim(min(low, (low + high) / 2 - 1), max(high, (low + high) / 2 + 1))
            else:
                axes.set_ylim(0, high)
            values = sorted(set(table[self.x]))
            smallest = next(value for value in values if value > 0) if values[-1] > 0 else 1
            if values[0] > 0 and values[-1] / values[0] >= 8:
                axes.set_xscale("log", base=2)
            elif values[0] == 0 and values[-1] / smallest >= 30:
                axes.set_xscale("symlog", linthresh=smallest)  # 0 has its place beside decades
                axes.set_xlim(left=-0.1 * smallest)
            axes.set_xticks(values, [f"{value:g}" for value in values])
            axes.minorticks_off()
            named(axes, x=SPOKEN.get(self.x, self.x.replace("_", " ")))
        legend(figure, keys, columns=columns)
        return figure

    def _names(self, cells: Sequence[Resolved]) -> list[str]:
        """Return for each cell what tells its curve from others: what `of` names, and whatever else differs.

        What follows from the keys before it, as the number of nodes does from the task, is not named, nor is how long
        each part of a sweep takes to its end.
        """
        apart = [self._apart(settings) for settings in cells]
        short: list[Mapping[str, str]] = [
            {key: value for key, value in each.items() if key != "rounds"} for each in apart
        ]
        places = {
            (*sorted(each.items()), self._value(cell), cell.seed) for each, cell in zip(short, cells, strict=True)
        }
        if len(places) == len(cells):
            apart = short
        keys = dict.fromkeys(key for each in apart for key in each)
        telling = [self.of]
        for key in keys:
            before, after = ({tuple(map(each.get, named)) for each in apart} for named in (telling, [*telling, key]))
            if len(after) > len(before):
                telling.append(key)
        return [
            ", ".join(each[key] if key in SPECS else f"{key} {each[key]}" for key in telling if key in each)
            for each in apart
        ]

    def _apart(self, settings: Resolved) -> Mapping[str, str]:
        spec = plugins.parse(getattr(settings, self.of))
        others = {
            name: str(value)
            for name, value in settings.model_dump().items()
            if name not in (*WHEREABOUTS, "seed", self.of, self.x)
        }
        options = {name: repr(value) for name, value in spec.options.items() if name != self.x}
        return {self.of: spec.name, **others, **options}

    def _value(self, settings: Resolved) -> float:
        spec = plugins.parse(getattr(settings, self.of))
        if self.x in Settings.model_fields:
            value: Any = getattr(settings, self.x)
        elif self.x in spec.options:
            value = spec.options[self.x]
        else:
            defaults = {option.name: option.default for option in plugins.describe(self.of, spec.name).options}
            if self.x not in defaults:
                raise ValueError(f"option_curves finds no setting and no option of {spec.name} called {self.x}")
            value = ast.literal_eval(defaults[self.x] or "None")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"option_curves needs numbers: {self.x} = {value!r}")
        return value
