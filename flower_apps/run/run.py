"""The run, built once: everything that resolved settings stand for, made when it is first asked for and handed down.

A scheme derives its own run from this class and adds what only it has. There is one object for the same settings in a
process (`flower_apps.schemes.scheme.built`), which the server side, the clients and the checks share.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, cast

import torch

from thornbed.flower_apps.loggers import Logger
from thornbed.flower_apps.records.folder import Folder
from thornbed.flower_apps.settings import AUTO, BadSettings, Resolved, plugins
from thornbed.flower_apps.settings.plugins import Spec
from thornbed.strategies import NumberedClients
from thornbed.tasks import Task

MakeOptimizer = Callable[[Any], torch.optim.Optimizer]


class Run:
    """What every scheme's run has.

    Attributes
    ----------
    settings : resolved; nothing else decides what the run does.
    output : the folder of its records.
    base : the folder with the data, to which paths in options are relative; None where none is named.
    attacks, defenses : the specs, in the order that they were written.
    """

    def __init__(self, settings: Resolved) -> None:
        self.settings = settings
        self.output = Path(settings.output).expanduser()
        self.base = Path(settings.data_dir).expanduser() if settings.data_dir else None
        self.attacks = plugins.parse_sum(settings.attack)
        self.defenses = plugins.parse_sum(settings.defense)

    @property
    def deployed(self) -> bool:
        """Whether the clients are on machines of their own."""
        return self.settings.engine == "deployment"

    @property
    def goes_on(self) -> bool:
        """Whether the run goes on from a checkpoint in its folder."""
        return self.settings.resume and Folder(self.output).rounds_done() is not None

    @cached_property
    def task(self) -> Task:
        """The task with its data."""
        return load_task(self.settings.task, self.settings.data_dir)

    @cached_property
    def device(self) -> torch.device:
        """The device to train on; raises BadSettings for one that was asked for and is missing."""
        return device_of(self.settings.device)

    @cached_property
    def optimizer(self) -> MakeOptimizer:
        """The maker of local optimisers: parameters in, optimiser out."""
        make, rate = plugins.load("optimizer", self.settings.optimizer), self.settings.learning_rate
        return lambda parameters: cast(torch.optim.Optimizer, make(parameters, rate))

    def specs_in(self, folder: str) -> list[Spec]:
        """Return the specs of the defenses that lie in a folder, such as defenses/trimming, in their order."""
        folders = plugins.available("defense")
        return [spec for spec in self.defenses if folders.get(spec.name) == folder]

    def cohort(self) -> NumberedClients:
        """Return who takes part in the rounds: a new cohort that has asked nobody yet."""
        return cohort(self.settings)

    def loggers(self, folder: Path) -> list[Logger]:
        """Start the loggers of the run, which writes into a folder."""
        specs = plugins.parse_sum(self.settings.logger)
        return [plugins.load("logger", spec)(folder, self.settings) for spec in specs]


@lru_cache(maxsize=4)
def load_task(task: str, data_dir: str) -> Task:
    """Load a task's data, once per process; runs of the same task have them in common."""
    folder = Path(data_dir).expanduser() if data_dir else None
    if folder is not None and not folder.is_dir():
        raise BadSettings(f"--data-dir {data_dir} is no folder")
    try:
        loaded = plugins.load("task", task)(folder)
    except MemoryError as error:
        raise BadSettings(f"--task {task} does not fit into memory: {error}") from None
    if not isinstance(loaded, Task):
        raise TypeError(f"task {task} returned {type(loaded).__name__} instead of a Task")
    return loaded


def device_of(name: str) -> torch.device:
    """Return the device of a name; one that was asked for and is missing is refused, never replaced."""
    if name == AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
        torch.ones(1, device=chosen).add(1).item()  # "meta" takes a tensor and has no values
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BadSettings(f"--device {name} cannot be used here: {reason}") from None
    return chosen


def cohort(settings: Resolved) -> NumberedClients:
    """Return who takes part in the rounds of resolved settings."""
    # Real machines may be away when a run begins; in a simulation a missing client is a wrong number somewhere.
    deployed = settings.engine == "deployment"
    # Nobody comes late in a simulation: its clients are there or its engine ends. The first answer waits for ray's
    # processes, though, which a busy machine takes more than a minute to start.
    patience = 60.0 if deployed else 600.0
    return NumberedClients(
        settings.num_clients,
        settings.clients_per_round,
        seed=settings.seed,
        fixed=None if settings.malicious_per_round == AUTO else (settings.malicious, settings.malicious_per_round),
        min_clients=settings.min_replies if deployed else settings.num_clients,
        wait_seconds=patience if settings.node_timeout == AUTO else settings.node_timeout,
    )
