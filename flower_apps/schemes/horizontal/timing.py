"""How long training by steps takes: a few of them are timed."""

from __future__ import annotations

import time
from functools import lru_cache
from statistics import median

import torch
import torch.nn.functional as F

from thornbed.clients.local_training import one_thread
from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun
from thornbed.flower_apps.settings import AUTO, NONE, Resolved, Settings, plugins


def seconds_of_steps(run: HorizontalRun) -> float:
    """Return about how many seconds the rounds of a run take: its steps of training and testing times the time of one.

    Times a few steps of the model on its own data, once for each model, task and batch size in a process. Flower's
    engines and attacks that are slow themselves make it an underestimate, and so does a busy machine.
    """
    settings, rows, task = run.settings, run.partitions, run.task
    share = settings.clients_per_round / settings.num_clients
    steps = sum(-(-len(client) // settings.batch_size) for client in rows) * share * settings.local_epochs
    tested = len(task.test) * (1 if settings.attack == "none" else 2)
    what = ("task", "data_dir", "model", "optimizer", "learning_rate", "batch_size", "device")
    alike = {**Settings().model_dump(), **{name: getattr(settings, name) for name in what}}
    training, testing = _timed(Resolved.model_construct(**alike))
    trained = settings.rounds * (steps * training + tested * testing)
    return float(trained + _inverting(run, training))


def _inverting(run: HorizontalRun, training: float) -> float:
    """Return about how long a curious server takes, where its attack has `steps`: each costs four times a training step
    on the images of the update (measured on ResNet-20), since gradients are themselves differentiated.
    """
    settings = run.settings
    if settings.curious == NONE:
        return 0.0
    spec = plugins.parse(settings.curious)
    options = {option.name: option.default for option in plugins.describe("curious", spec.name).options}
    steps = spec.options.get("steps", options.get("steps") or 0)
    clients, rounds = settings.curious_clients, len(settings.rounds_read)
    some = {AUTO: 1, "all": settings.clients_per_round}
    read = some[clients] if clients in some else len(clients.split(","))
    images = max(1.0, len(run.partitions[0]) * min(settings.local_epochs, 1.0))
    return 4 * float(steps) * rounds * read * images / settings.batch_size * training


@lru_cache(maxsize=32)
def _timed(settings: Resolved) -> tuple[float, float]:
    """Return the seconds of one training step, and of testing one sample."""
    run = HorizontalRun(settings)
    loaded, device = run.task, run.device
    network = run.network.to(device)
    stepper = run.optimizer(network.parameters())
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
