"""A metric: its name among people, and how its numbers are shown."""

from __future__ import annotations

from dataclasses import dataclass


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
