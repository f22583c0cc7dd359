"""Write the figures of each round as TensorBoard scalars into the folder `tensorboard` of the output.

Source: torch.utils.tensorboard; look at them with `tensorboard --logdir runs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thornbed.flower_apps.loggers import Logger, figures
from thornbed.flower_apps.settings import Settings

PACKAGE = "tensorboard"


def tensorboard(folder: Path, settings: Settings) -> Logger:
    """Return a logger that writes event files; a run that goes on writes another file beside the first."""
    from torch.utils.tensorboard import SummaryWriter

    return _TensorBoard(SummaryWriter(str(folder / "tensorboard")))


class _TensorBoard:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def log(self, line: Mapping[str, Any]) -> None:
        for name, value in figures(line).items():
            self._writer.add_scalar(name, value, line["round"])
        self._writer.flush()  # a run that is killed has shown its rounds

    def close(self) -> None:
        self._writer.close()
