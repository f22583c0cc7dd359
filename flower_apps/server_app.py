"""Flower's server app: the run config says what to run, `flwr run` or an engine of this project starts it."""

from __future__ import annotations

from logging import ERROR

from flwr.app import Context
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from flower_apps import build
from flower_apps.config import settings_from
from flower_apps.federation import conduct
from flower_apps.flower_cli import STOPPED

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Check the run config as the command line does, then run.

    What stops a run is logged as one line, which the command line that started it shows to its user.
    """
    try:
        settings = build.resolve(settings_from(dict(context.run_config)))
        build.check(settings)
        conduct(settings, grid)
    except (ValueError, RuntimeError, OSError) as error:
        log(ERROR, "%s%s", STOPPED, " ".join(str(error).split()))
        raise
