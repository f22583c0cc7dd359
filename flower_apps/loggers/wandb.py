"""Log the figures of each round with Weights & Biases, offline unless told otherwise.

Source: the wandb package; an offline run lies in the folder `wandb` of the output, and `wandb sync` uploads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from thornbed.flower_apps.loggers import Logger, figures
from thornbed.flower_apps.settings import Settings

PACKAGE = "wandb"


def wandb(
    folder: Path, settings: Settings, *, project: str = "thornbed", mode: Literal["offline", "online"] = "offline"
) -> Logger:
    """Return a logger of a run named like the output folder; `mode` online needs a network and a key of theirs."""
    import wandb as package

    config = {name: value for name, value in settings.model_dump().items() if name != "origin"}
    quiet = package.Settings(silent=True, x_disable_stats=True)
    run = package.init(project=project, name=folder.name, dir=str(folder), mode=mode, config=config, settings=quiet)
    return _WandB(run)


class _WandB:
    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, line: Mapping[str, Any]) -> None:
        self._run.log(figures(line), step=line["round"])

    def close(self) -> None:
        self._run.finish()
