"""Every metric that a run can have: its name in the records, what people call it, and how its numbers are shown.

There is no other list: tables of sweeps, numbers of papers, a run's own table, the report and the check of the records
read this one, and show what the runs at hand have. A new kind of learning adds its metrics here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How a metric is shown.

    Attributes
    ----------
    words : what people call it, within a sentence.
    rate : whether it lies in [0, 1], so that it has a bar, a curve and a heatmap.
    unit : stands after a number, and after the words at the head of a column.
    form : of a number in tables of many runs, also of its deviation.
    alone : of a number that is one run's; empty: the same.
    short : in the progress bar of a run; a metric that has this keeps its column where it was not measured.
    column : whether tables for people have a column of it; files and a run's own table always have it.
    missing : stands for a number that there is not, where it is one run's.
    """

    words: str
    rate: bool = False
    unit: str = ""
    form: str = "{:.3f}"
    alone: str = ""
    short: str = ""
    column: bool = True
    missing: str = "-"

    @property
    def head(self) -> str:
        """Return the head of a column: "attack success rate", "PSNR (dB)"."""
        return self.words + (f" ({self.unit})" if self.unit else "")

    @property
    def heading(self) -> str:
        """Return the head as a title begins: "Attack success rate"."""
        return self.head[:1].upper() + self.head[1:]

    def shown(self, value: float | None) -> str:
        """Return the number of one run, with its unit."""
        if value is None:
            return self.missing
        return (self.alone or self.form).format(value) + (f" {self.unit}" if self.unit else "")


# In the order of the columns of tables and files.
METRICS: Mapping[str, Metric] = {
    # Learning over clients that hold samples of their own.
    "accuracy": Metric(words="accuracy", rate=True, short="acc"),
    "loss": Metric(words="loss", alone="{:.4f}", column=False, missing="not finite"),
    "attack_success_rate": Metric(words="attack success rate", rate=True, short="asr"),
    # Multitask.
    "error": Metric(words="error", rate=True, short="error"),
    "target_error": Metric(words="target error", rate=True, short="targets"),
    "rmse": Metric(words="RMSE", short="RMSE"),
    "target_rmse": Metric(words="target RMSE", short="targets"),
    "primal_objective": Metric(words="primal objective", form="{:.4g}", column=False),
    "dual_objective": Metric(words="dual objective", form="{:.4g}", column=False),
    "duality_gap": Metric(words="duality gap", form="{:.2e}"),
    # Vertical.
    "clean_data_accuracy": Metric(words="clean data accuracy", rate=True, short="acc"),
    "untriggered_rate": Metric(words="untriggered rate", rate=True),
    "replaced_rate": Metric(words="replaced rate", rate=True),
    "label_inference_accuracy": Metric(words="label inference accuracy", rate=True),
    "inferred_samples": Metric(words="inferred samples", form="{:.6g}"),
    "gradient_perturbation": Metric(words="gradient perturbation", form="{:.3g}"),
    "connectivity": Metric(words="connectivity", form="{:.3g}"),
    # Collaborative inference.
    "clean_accuracy": Metric(words="clean accuracy", rate=True, short="clean"),
    "robust_accuracy": Metric(words="robust accuracy", rate=True, short="robust"),
    "majority_share": Metric(words="majority share", rate=True, column=False),
    "explained_variance": Metric(words="explained variance", column=False),
    # Inversion.
    "psnr": Metric(words="PSNR", unit="dB", form="{:.2f}"),
    "ssim": Metric(words="SSIM"),
    "lpips": Metric(words="LPIPS"),
    "label_accuracy": Metric(words="label accuracy", rate=True),
    "matching_success_rate": Metric(words="matching success rate", rate=True),
    "seconds_per_step": Metric(words="seconds per step", form="{:.3g}"),
}
# What a run without a single number is said to lack.
USUAL = ("accuracy", "attack_success_rate")


def named(contents: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the metrics that any of the contents has, be it without a number, in the order of the table above."""
    found = {name for content in contents for name in content}
    return [name for name in METRICS if name in found]


def columns(contents: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the metrics that a table of these runs has columns of, those without any number left out.

    A metric of the progress bar stays, also without one: that nobody measured it is worth a word. Where there is no
    metric at all, `USUAL` are those that are missing.
    """
    contents = list(contents)
    numbers = {name for content in contents for name, value in content.items() if value is not None}
    known = [name for name in named(contents) if METRICS[name].column]
    return [name for name in known if name in numbers or METRICS[name].short] or list(USUAL)


def rates_first(names: Iterable[str]) -> list[str]:
    """Return metrics in the order of a run's own table."""
    return sorted(names, key=lambda name: not METRICS[name].rate)
