"""Figures of a sweep, one a file: a frozen dataclass whose fields are its options, named by `figure` in `[about]`.

The class has the name of its file without underscores (`LossLandscape` in loss_landscape.py) and is a `Figure`. It is
drawn once every cell is finished, and whenever the same command is repeated. pandas and matplotlib are imported inside
the functions: a sweep file is read, and its figure checked, without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from thornbed.experiments.runs.finished import FinishedRun
from thornbed.flower_apps.schemes.horizontal.roles import attack_of
from thornbed.flower_apps.settings import Resolved

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib import figure


@dataclass(frozen=True)
class Drawing:
    """A picture and the numbers in it.

    Attributes
    ----------
    picture : written as NAME.png.
    tables : the numbers by the part of the picture that they are in, written as NAME-PART.csv; those of "", which every
        drawing has, as NAME.csv. One row a point, a column for each number.
    """

    picture: figure.Figure
    tables: Mapping[str, pd.DataFrame]


class Figure(Protocol):
    """What every figure of this folder is: two verbs and a constant, on top of options with defaults.

    The options are checked when the figure is made, alone; against a sweep they are checked by `check`. Both raise
    ValueError with a sentence, before the first cell starts.
    """

    needs_cells: ClassVar[bool]
    """Whether it is drawn from runs; a sweep file of figures that need none, without any setting, has no cells."""

    def check(self, cells: Sequence[Resolved]) -> None:
        """Raise ValueError where the figure cannot be drawn from runs of these settings."""

    def draw(self, runs: Sequence[FinishedRun]) -> Drawing:
        """Return the drawing of finished runs, in the order of the sweep; the same runs give the same numbers.

        Randomness is that of the runs' seeds, or of an option of the figure's own. Raises RunFailed with a
        sentence where what was run cannot be drawn.
        """


def check_backdoor(figure: str, cells: Sequence[Resolved]) -> None:
    """Raise ValueError where a cell has no attack on data, so that nothing says what a backdoor's samples are."""
    for settings in cells:
        built = attack_of(settings.attack, Path(settings.data_dir).expanduser() if settings.data_dir else None)
        if built is None or not built.data:
            raise ValueError(f"{figure} needs an attack on data in every cell: attack = {settings.attack}")
