"""Flower's server app: the run config says what to run, `flwr run` or an engine of this project starts it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from logging import ERROR, INFO
from typing import Any

from flwr.app import Context
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp
from flwr.superlink.grid import InMemoryGrid

from thornbed.flower_apps.federation import conduct
from thornbed.flower_apps.metrics import named
from thornbed.flower_apps.resolving import check, resolve
from thornbed.flower_apps.settings import BadSettings, settings_from
from thornbed.strategies import VirtualNodes

# Marks of what is said in Flower's log, each on a line of its own; engines follow a run by them.
ROUND, SUMMARY, STOPPED = "thornbed round: ", "thornbed summary: ", "thornbed stopped: "

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Check the run config as the command line does, then run.

    Every round, the summary, and what stops a run are logged as one line each, which whoever started it can read.
    """
    try:
        settings = resolve(settings_from(dict(context.run_config)))
        simulated = isinstance(grid, InMemoryGrid)
        if simulated == (settings.engine == "deployment"):
            where = "a simulation" if simulated else "a deployment"
            right = "simulation" if simulated else "deployment"
            raise BadSettings(f'this is {where} of Flower\'s, and engine is {settings.engine!r}: say engine="{right}"')
        if simulated:  # also where nothing was said, and the engine is the default
            settings = settings.model_copy(update={"engine": "simulation"})
        check(settings)
        summary = conduct(settings, VirtualNodes(grid) if simulated else grid, _say_round)
        _say(SUMMARY, summary, ("metrics", "rounds", "seconds", "malicious", "replies_dropped", "defense_acted"))
    except (ValueError, RuntimeError, OSError) as error:
        log(ERROR, "%s%s", STOPPED, " ".join(str(error).split()))
        raise


def _say_round(line: Mapping[str, Any]) -> None:
    _say(ROUND, line, ("round", *named([line])))


def _say(mark: str, content: Mapping[str, Any], keys: Iterable[str]) -> None:
    log(INFO, "%s%s", mark, json.dumps({key: content[key] for key in keys}))
