"""How long a sweep will take: a few timed steps before it starts, the cells that are done afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import lru_cache
from statistics import median

import torch
import torch.nn.functional as F

from clients.local_training import one_thread
from flower_apps import build, plugins
from flower_apps.config import AUTO, NONE, Resolved, Settings
from flower_apps.inversion.choice import rounds_read
from flower_apps.resolving import resolve

# Start and end of a run, and what Flower's virtual client engine costs beside the training (docs/benchmarks.md).
SECONDS_A_RUN, SECONDS_A_SIMULATION = 0.5, 20.0


class Estimate:
    """Seconds that cells will take; the ones that are done correct what was measured beforehand."""

    def __init__(self, seconds: Iterable[float], jobs: int) -> None:
        self._left = list(seconds)
        self._jobs = jobs
        self._expected = self._took = 0.0

    def done(self, expected: float, took: float) -> None:
        """Learn from a cell that was expected to take so long, and took so long."""
        self._left.remove(expected)
        self._expected, self._took = self._expected + expected, self._took + took

    def skip(self, expected: float) -> None:
        """Leave out a cell that broke."""
        self._left.remove(expected)

    @property
    def seconds_left(self) -> float:
        """Seconds until all cells are done, those that run now counted as if they had not begun."""
        scale = self._took / self._expected if self._expected else 1.0
        return scale * sum(self._left) / min(self._jobs, max(len(self._left), 1))


def seconds_of(settings: Resolved) -> float:
    """Return about how many seconds a run takes: its steps of training and testing times the time of one.

    Times a few steps of the model on its own data, once for each model, task and batch size in a process. Flower's
    engines and attacks that are slow themselves make it an underestimate, and so does a busy machine.
    """
    rows = build.partitions(settings)
    share = settings.clients_per_round / settings.num_clients
    steps = sum(-(-len(client) // settings.batch_size) for client in rows) * share * settings.local_epochs
    task = build.load_task(settings.task, settings.data_dir)
    tested = len(task.test) * (1 if settings.attack == "none" else 2)
    what = ("task", "data_dir", "model", "optimizer", "learning_rate", "batch_size", "device")
    training, testing = _timed(resolve(Settings(**{name: getattr(settings, name) for name in what})))
    engine = SECONDS_A_SIMULATION if settings.engine == "simulation" else 0.0
    trained = settings.rounds * (steps * training + tested * testing)
    return SECONDS_A_RUN + engine + trained + _inverting(settings, training)


def _inverting(settings: Resolved, training: float) -> float:
    """Return about how long a curious server takes, where its attack has `steps`: each costs four times a training step
    on the images of the update (measured on ResNet-20), since gradients are themselves differentiated.
    """
    if settings.curious == NONE:
        return 0.0
    spec = plugins.parse(settings.curious)
    options = {option.name: option.default for option in plugins.describe("curious", spec.name).options}
    steps = spec.options.get("steps", options.get("steps") or 0)
    clients, rounds = settings.curious_clients, len(rounds_read(settings))
    some = {AUTO: 1, "all": settings.clients_per_round}
    read = some[clients] if clients in some else len(clients.split(","))
    images = max(1.0, len(build.partitions(settings)[0]) * min(settings.local_epochs, 1.0))
    return 4 * float(steps) * rounds * read * images / settings.batch_size * training


@lru_cache(maxsize=32)
def _timed(settings: Resolved) -> tuple[float, float]:
    """Return the seconds of one training step, and of testing one sample."""
    loaded = build.load_task(settings.task, settings.data_dir)
    device = build.device(settings)
    network = build.model(settings, loaded).to(device)
    stepper = build.optimizer(settings)(network.parameters())
    samples = loaded.samples("train", torch.arange(min(settings.batch_size, len(loaded.train)))).decoded()
    x, y = samples.x.to(device), samples.y.to(device)

    def step() -> float:
        started = time.perf_counter()
        stepper.zero_grad()
        F.cross_entropy(network(x), y).backward()
        stepper.step()
        float(next(network.parameters()).detach().sum())  # waits for a GPU
        return time.perf_counter() - started

    with one_thread():
        training = median([step() for _ in range(5)][1:])
    # A forward pass is about a third of a step.
    return training, training / 3 / len(samples)
