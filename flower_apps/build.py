"""From resolved settings to objects: data, model, rule, strategy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from defenses.server import Rule, Server, aggregate
from flower_apps import plugins
from flower_apps.config import AUTO, NONE, BadSettings, Resolved
from flower_apps.loggers import Logger
from protocol.randomness import derived_seed, generator
from protocol.tensor_files import load_tensors, misfit
from strategies import FedAvg, NumberedClients
from strategies._cohort import Cohort
from strategies.fedavg import RootTraining
from tasks import Samples, Task
from tasks.models import embedded, normalised


@lru_cache(maxsize=4)
def load_task(task: str, data_dir: str) -> Task:
    """Load a task's data, once per process."""
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


def partitions(settings: Resolved) -> list[np.ndarray]:
    """Return the training rows of every client, divided once per process."""
    seed = derived_seed(settings.seed, "partition") % 2**32
    return _partitions(settings.task, settings.data_dir, settings.partition, settings.num_clients, seed)


@lru_cache(maxsize=4)
def _partitions(task: str, data_dir: str, partition: str, num_clients: int, seed: int) -> list[np.ndarray]:
    labels = load_task(task, data_dir).train.y.numpy()
    return list(plugins.load("partition", partition)(labels, num_clients, seed))


def client_samples(settings: Resolved, client: int) -> Samples:
    """Return a client's own training rows, decoded, before anybody has touched them."""
    task = load_task(settings.task, settings.data_dir)
    return task.samples("train", torch.from_numpy(partitions(settings)[client]))


def root_samples(settings: Resolved, num_samples: int) -> Samples:
    """Return the server's own samples, drawn once; raises BadSettings where the task has not so many."""
    task = load_task(settings.task, settings.data_dir)
    if not 1 <= num_samples <= len(task.train):
        raise BadSettings(
            f"--strategy {settings.strategy} asks for {num_samples} trusted samples; --task {settings.task} has 1 to "
            f"{len(task.train)}"
        )
    order = torch.randperm(len(task.train), generator=generator(settings.seed, "root"))
    return task.samples("train", order[:num_samples])


def model(settings: Resolved, task: Task) -> nn.Module:
    """Build the model with initial weights that depend on the seed alone."""
    make = plugins.load("model", settings.model)
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed every GPU too, and the fork gives back the CPU's generator alone
        torch.default_generator.manual_seed(derived_seed(settings.seed, "model"))
        built: nn.Module = make(task.input_shape, task.num_classes)
    network = normalised(built, task.mean, task.std)
    if task.vectors is not None:
        network = embedded(network, task.vectors)
    # Convolutions on a CPU are about a quarter faster with the channels last; values and names stay the same.
    if task.modality == "image":
        network = cast(Any, network).to(memory_format=torch.channels_last)  # torch's own stubs lack this overload
    return network


def statistics(network: nn.Module) -> frozenset[str]:
    """Return the names of the floating entries of a network's state that are no parameters: what its layers measure."""
    learned = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    return frozenset(
        name for name, value in network.state_dict().items() if value.is_floating_point() and name not in learned
    )


def starting_model(settings: Resolved, network: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that a run begins with: those of a fresh `network`, or of the file that --start-from names.

    Raises BadSettings where that is not there, is no safetensors file, does not fit, or has values that are not finite.
    """
    own: dict[str, Tensor] = network.state_dict()
    if not settings.start_from:
        return own
    return stored_model(settings, own)[0]


def stored_model(
    settings: Resolved, own: Mapping[str, Tensor], prefix: str = ""
) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """Return the tensors of the file that --start-from names, of these names and shapes, and what it says of them.

    prefix : of the names that count in the file. Raises BadSettings as `starting_model` does.
    """
    path = Path(settings.start_from).expanduser()
    try:
        stored, said = load_tensors(path)
    except FileNotFoundError:
        raise BadSettings(f"--start-from {path} is not there; name the model.safetensors of a run") from None
    except ValueError as error:
        raise BadSettings(f"--start-from {path} is no safetensors file, or damaged ({error})") from None
    tensors = {name: tensor for name, tensor in stored.items() if name.startswith(prefix)}
    if (fault := misfit(tensors, own)) is not None:
        raise BadSettings(f"--start-from {path} does not fit --model {settings.model}: {fault}")
    tensors = {name: tensors[name].to(tensor.dtype) for name, tensor in own.items()}
    if odd := [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]:
        raise BadSettings(f"--start-from {path} holds values that are not finite: in {odd[0]} ({len(odd)} such)")
    return tensors, said


def device(settings: Resolved) -> torch.device:
    """Return the device to train on; a device that was asked for and is missing is refused, never replaced."""
    if settings.device == AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(settings.device)
        torch.ones(1, device=chosen).add(1).item()  # "meta" takes a tensor and has no values
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BadSettings(f"--device {settings.device} cannot be used here: {reason}") from None
    return chosen


@lru_cache(maxsize=64)
def optimizer(settings: Resolved) -> Callable[[Any], torch.optim.Optimizer]:
    """Return the maker of local optimisers: parameters in, optimiser out."""
    make = plugins.load("optimizer", settings.optimizer)
    return lambda parameters: cast(torch.optim.Optimizer, make(parameters, settings.learning_rate))


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


def strategy(
    settings: Resolved, root_training: RootTraining | None = None, statistics: Collection[str] | None = None
) -> FedAvg:
    """Build the strategy of resolved settings; `root_training` is for rules that ask for trusted data.

    `statistics` are those of the run's network.
    """
    built: FedAvg = strategy_of(settings.strategy, cohort(settings), settings.min_replies)
    built.seed, built.root_training, built.statistics = settings.seed, root_training, statistics
    return built


def loggers(settings: Resolved, folder: Path) -> list[Logger]:
    """Start the loggers of a run that writes into a folder."""
    specs = [] if settings.logger == NONE else plugins.parse_sum(settings.logger)
    return [plugins.load("logger", spec)(folder, settings) for spec in specs]


def strategy_of(text: str, cohort: Cohort, min_replies: int) -> Any:
    """Build the strategy that a spec names: a class of strategies/, or FedAvg with a rule of defenses/aggregation."""
    spec = plugins.parse(text)
    made = plugins.load("strategy", spec)
    if plugins.available("strategy")[spec.name] == "strategies":
        return made(cohort, min_replies)
    return FedAvg(cohort, min_replies, rule=made)


def refusal(rule: Rule, count: int, root: Callable[[int], object] = lambda num_samples: None) -> str | None:
    """Return why a rule cannot work on so many replies, None where it can: a small made round asks it.

    `root` is asked for the trusted samples that the rule trains on; it raises ValueError where there are not so many.
    """
    made = torch.randn(count + 1, 8, generator=generator(0, "check"))

    def root_update(num_samples: int) -> Tensor:
        root(num_samples)
        return made[-1]

    server = Server(clients=range(count), generator=generator(0, "rule"), root_update=root_update)
    try:
        step = aggregate(rule, made[:-1], torch.full((count,), 1 / count), server)
    except ValueError as error:
        return str(error)
    return None if step.isfinite().all() else "--strategy takes no step that is finite: an option is too large"
