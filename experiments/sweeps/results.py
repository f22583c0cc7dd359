"""Tables of finished runs: one row a run, one for runs that differ in their seed alone, and a paper's beside ours."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thornbed.experiments.sweeps.plan import Plan, Published, matches
from thornbed.flower_apps.metrics import METRICS, named
from thornbed.flower_apps.records.folder import WHEREABOUTS, Folder
from thornbed.flower_apps.settings import BadSettings, Settings, settings_from
from thornbed.protocol.whole_files import write_text

if TYPE_CHECKING:
    import pandas as pd

# What a run is, in the order of the columns; the other settings follow where runs differ in them.
FIRST = ("task", "model", "strategy", "attack", "defense", "num_malicious", "partition")
FORMS = {"seconds": "{:.1f}", **{name: metric.form for name, metric in METRICS.items()}}


def runs_frame(folders: Iterable[Folder]) -> pd.DataFrame:
    """Return one row for each finished run: its settings, its final metrics, and its seconds."""
    import pandas as pd

    rows = []
    for folder in readable(folders):
        if (summary := folder.summary()) is None:
            continue
        settings = settings_from(summary["settings"]).model_dump()
        metrics = {name: summary["metrics"][name] for name in named([summary["metrics"]])}
        rows.append({**settings, **metrics, "seconds": summary["seconds"], "folder": str(folder.path)})
    return pd.DataFrame(rows)


def readable(folders: Iterable[Folder]) -> list[Folder]:
    """Return the folders whose records can be read."""
    found = []
    for folder in folders:
        try:
            folder.check()
        except BadSettings:
            continue
        found.append(folder)
    return found


def compared(runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row for runs that differ in their seed alone: settings that differ between rows, then of each metric
    the mean and the standard deviation (of the sample, NaN for one seed), the number of seeds, and the mean seconds.
    """
    import pandas as pd

    if runs.empty:
        return runs
    settings = [name for name in Settings.model_fields if name not in (*WHEREABOUTS, "seed")]
    runs = runs.drop_duplicates([*settings, "seed"])  # a copy of a run is no further seed
    groups = runs.groupby(settings, sort=False, dropna=False)
    parts: list[pd.Series[Any]] = [groups.size().rename("seeds")]
    for metric in (name for name in METRICS if name in runs and runs[name].notna().any()):
        values = pd.to_numeric(runs[metric]).groupby([runs[name] for name in settings], sort=False, dropna=False)
        parts += [values.mean().rename(metric), values.std(ddof=1).rename(f"{metric}_std")]
    parts.append(groups["seconds"].mean())
    table = pd.concat(parts, axis=1).reset_index()
    told = [name for name in (*FIRST, *settings) if name in ("strategy", "attack") or table[name].nunique() > 1]
    return table[[*dict.fromkeys(told), *(part.name for part in parts)]]


def as_texts(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of texts for people: a metric and its deviation as one, "0.969 ± 0.004", a dash for no number.

    Where a table has a column `metric`, a row's numbers are shown as those of its metric are.
    """
    import pandas as pd

    texts = pd.DataFrame(index=table.index)
    for name in map(str, table):
        if name.endswith("_std") or name == "std":
            continue
        deviation = table.get("std" if name == "ours" else f"{name}_std", pd.Series(float("nan"), index=table.index))
        head = METRICS[name].head if name in METRICS else name.replace("_", " ")
        if pd.api.types.is_float_dtype(table[name]):
            form = FORMS.get(name, "{:g}" if name in Settings.model_fields else "{:.3f}")
            forms = [FORMS[metric] for metric in table["metric"]] if "metric" in table else [form] * len(table)
            if name == "difference":
                forms = [form.replace("{:", "{:+") for form in forms]
            texts[head] = [_text(*row) for row in zip(forms, table[name], deviation)]
        else:
            texts[head] = table[name].astype(str)
    return texts


def _text(form: str, value: float, deviation: float) -> str:
    if math.isnan(value):
        return "–"
    return form.format(value) + ("" if math.isnan(deviation) else f" ± {form.format(deviation)}")


def write_tables(table: pd.DataFrame, folder: Path, name: str) -> list[Path]:
    """Write a table as NAME.csv, NAME.json (a list of rows, null for no number) and NAME.tex (booktabs)."""
    paths = [folder / f"{name}.{ending}" for ending in ("csv", "json", "tex")]
    write_text(paths[0], table.to_csv(index=False))
    write_text(paths[1], table.to_json(orient="records", indent=2))
    write_text(paths[2], as_texts(table).to_latex(index=False, escape=True))
    return paths


def beside_published(plan: Plan, runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each number of the paper: where it stands, the paper's, ours (mean, standard deviation,
    seeds), and ours minus the paper's; NaN where no run of that kind is finished.
    """
    import pandas as pd

    rows = []
    for number in plan.published:
        values = pd.Series(_values(number, runs), dtype=float)
        rows.append(
            {
                "of": ", ".join(f"{name} {value}" for name, value in number.where.items()),
                "metric": number.metric,
                "paper": number.value,
                "ours": values.mean(),
                "std": values.std(ddof=1),
                "seeds": values.count(),
                "difference": values.mean() - number.value,
                "source": number.source,
            }
        )
    return pd.DataFrame(rows)


def _values(number: Published, runs: pd.DataFrame) -> list[Any]:
    if runs.empty or number.metric not in runs:
        return []
    rows = [{str(name): value for name, value in row.items()} for row in runs.to_dict("records")]
    known = [{name: row[name] for name in Settings.model_fields} for row in rows]
    return [row[number.metric] for row, values in zip(rows, known) if matches(number, settings_from(values))]
