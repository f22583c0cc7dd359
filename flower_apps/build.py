"""From settings to objects: the data, the model, the rule, the roles; and everything that can be refused beforehand."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from attacks.data import DataAttack
from clients.backdoor import Backdoor
from clients.benign import Benign
from clients.poisoning import DataPoisoning, UpdatePoisoning
from clients.role import Role, Roles
from flower_apps import plugins
from flower_apps.config import AUTO, ENGINES, BadSettings, Resolved, Settings
from flower_apps.plugins import BadSpec, Spec
from protocol.randomness import derived_seed, generator
from strategies import FedAvg, NumberedClients
from tasks import Defaults, Task
from tasks.models import normalised

NONE = "none"


def resolve(settings: Settings) -> Resolved:
    """Fill in everything that is "auto" (but the device, which every machine chooses for itself), and check numbers.

    Raises BadSettings or BadSpec with a sentence; loads no data.
    """
    if settings.engine not in ENGINES:
        raise BadSettings(f"--engine takes {', '.join(ENGINES)}, not {settings.engine!r}")
    if settings.engine == "deployment" and not settings.superlink:
        raise BadSettings("--engine deployment needs --superlink HOST:PORT, the address of a running SuperLink")
    if settings.superlink and not re.fullmatch(r"[^\s:/]+:[1-9][0-9]{0,4}", settings.superlink):
        raise BadSettings(f"--superlink takes HOST:PORT, such as 10.0.0.5:8000, not {settings.superlink!r}")
    defaults = _defaults(settings.task)
    filled: dict[str, Any] = {
        name: getattr(defaults, name)
        for name in ("model", "optimizer", "learning_rate", "batch_size", "local_epochs", "rounds", "partition")
        if getattr(settings, name) == AUTO
    }
    num_clients = defaults.num_clients if settings.num_clients == AUTO else settings.num_clients
    per_round = (
        min(defaults.clients_per_round, num_clients)
        if settings.clients_per_round == AUTO
        else settings.clients_per_round
    )
    if per_round > num_clients:
        raise BadSettings(f"--clients-per-round {per_round} is more than --num-clients {num_clients}")
    min_replies = (per_round + 1) // 2 if settings.min_replies == AUTO else settings.min_replies
    if min_replies > per_round:
        raise BadSettings(f"--min-replies {min_replies} is more than --clients-per-round {per_round}")
    filled |= {
        "num_clients": num_clients,
        "clients_per_round": per_round,
        "min_replies": min_replies,
        "num_malicious": _num_malicious(settings, num_clients, defaults.malicious_share),
    }
    return Resolved(**{**settings.model_dump(), **filled})


def _num_malicious(settings: Settings, num_clients: int, share: float) -> int:
    named, count = settings.named_malicious, settings.num_malicious
    if named and named[-1] >= num_clients:
        raise BadSettings(f"--malicious-ids names client {named[-1]}; clients are 0 to {num_clients - 1}")
    if named and count not in (AUTO, len(named)):
        raise BadSettings(
            f"--malicious-ids names {len(named)} clients and --num-malicious says {count}; give one of them"
        )
    if settings.attack == NONE:
        if named or count not in (AUTO, 0):
            raise BadSettings(
                "there are malicious clients and no --attack; name an attack, or have no malicious clients"
            )
        return 0
    if named:
        return len(named)
    wanted = max(1, round(share * num_clients)) if count == AUTO else int(count)
    if wanted > num_clients:
        raise BadSettings(f"--num-malicious {wanted} is more than --num-clients {num_clients}")
    return wanted


def _defaults(task: str) -> Defaults:
    function = plugins.find("task", plugins.parse(task).name)
    defaults = importlib.import_module(function.__module__).DEFAULTS
    if not isinstance(defaults, Defaults):
        raise TypeError(f"{function.__module__} needs a constant DEFAULTS: Defaults")
    return defaults


@lru_cache(maxsize=4)
def load_task(task: str, data_dir: str) -> Task:
    """Load a task's data, once per process."""
    folder = Path(data_dir).expanduser() if data_dir else None
    if folder is not None and not folder.is_dir():
        raise BadSettings(f"--data-dir {data_dir} is no folder")
    loaded = plugins.load("task", task)(folder)
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


def model(settings: Resolved, task: Task) -> nn.Module:
    """Build the model with initial weights that depend on the seed alone."""
    make = plugins.load("model", settings.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(settings.seed, "model"))
        built: nn.Module = make(task.sample_shape, task.num_classes)
    network = normalised(built, task.mean, task.std)
    # Convolutions on a CPU are about a quarter faster with the channels last; values and names stay the same.
    if task.modality == "image":
        network = cast(Any, network).to(memory_format=torch.channels_last)  # torch's own stubs lack this overload
    return network


def device(settings: Resolved) -> torch.device:
    """Return the device to train on; a device that was asked for and is missing is refused, never replaced."""
    if settings.device == AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(settings.device)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BadSettings(f"--device {settings.device} cannot be used here: {reason}") from None
    return chosen


@lru_cache(maxsize=64)
def optimizer(settings: Resolved) -> Callable[[Any], torch.optim.Optimizer]:
    """Return the maker of local optimisers: parameters in, optimiser out."""
    make = plugins.load("optimizer", settings.optimizer)
    return lambda parameters: cast(torch.optim.Optimizer, make(parameters, settings.learning_rate))


@dataclass(frozen=True)
class Attack:
    """The parts of an attack, by what they touch, in the order they were written."""

    parts: tuple[tuple[Spec, str, Any], ...]

    @property
    def data(self) -> list[DataAttack]:
        """The parts that touch data."""
        return [attack for _, folder, attack in self.parts if folder == "attacks/data"]

    def role(self) -> Role:
        """Return the role of a client that makes this attack."""
        return Roles([_role(folder, attack) for _, folder, attack in self.parts])


def _role(folder: str, attack: Any) -> Role:
    if folder == "attacks/update":
        return UpdatePoisoning(attack)
    return Backdoor(attack) if attack.backdoor else DataPoisoning(attack)


def attack(text: str, data_dir: str) -> Attack | None:
    """Build an attack of its spec; None for none."""
    if text == NONE:
        return None
    folders = plugins.available("attack")
    base = Path(data_dir).expanduser() if data_dir else None
    specs = plugins.parse_sum(text)
    return Attack(tuple((spec, folders.get(spec.name, ""), plugins.load("attack", spec, base)) for spec in specs))


def role(settings: Resolved, client: int, node_config: Mapping[str, Any]) -> Role:
    """Return the role of a client.

    In deployment the node's own `--node-config` decides: `role="malicious"`, with the run's attack or an `attack` of
    its own; without it the node is honest. In the other engines the run's settings decide.
    """
    if settings.engine == "deployment":
        wanted = str(node_config.get("role", "benign"))
        if wanted not in ("benign", "malicious"):
            raise BadSettings(f"role in --node-config is benign or malicious, not {wanted!r}")
        malicious, text = wanted == "malicious", str(node_config.get("attack", settings.attack))
    else:
        malicious, text = client in settings.malicious, settings.attack
    if malicious:
        if (built := attack(text, settings.data_dir)) is None:
            raise BadSettings("this node is malicious and there is no attack: name one in --node-config or in the run")
        return built.role()
    defense = None if settings.defense == NONE else plugins.load("defense", settings.defense)
    return Benign(defense)


def strategy(settings: Resolved) -> FedAvg:
    """Build the strategy of resolved settings."""
    wait = settings.node_timeout
    cohort = NumberedClients(settings.num_clients, settings.clients_per_round, seed=settings.seed, wait_seconds=wait)
    spec, min_replies = plugins.parse(settings.strategy), settings.min_replies
    made = plugins.load("strategy", spec)
    if plugins.available("strategy")[spec.name] == "strategies":
        return cast(FedAvg, made(cohort, min_replies))
    return FedAvg(cohort, min_replies, rule=made)


def check(settings: Resolved, *, data: bool = True) -> None:
    """Build everything once and refuse what cannot work, before anything starts.

    With `data` false (deployment: the data lie on other machines) only what needs none is checked.
    """
    count = settings.clients_per_round
    # A rule knows its own conditions on the number of clients; a small made round asks it for them.
    made = torch.randn(count, 8, generator=generator(settings.seed, "check"))
    weights = torch.full((count,), 1 / count)
    strategy(settings).rule(made, weights)
    if settings.defense != NONE:
        plugins.load("defense", settings.defense)(made[0], generator(settings.seed, "check"))
    optimizer(settings)([nn.Parameter(torch.zeros(1))])
    built = attack(settings.attack, settings.data_dir)
    plugins.find("partition", plugins.parse(settings.partition).name)
    plugins.find("model", plugins.parse(settings.model).name)
    device(settings)
    if not data:
        return
    task = load_task(settings.task, settings.data_dir)
    for part in built.data if built else []:
        if task.modality not in part.modalities:
            takes = ", ".join(sorted(part.modalities))
            raise BadSettings(
                f"{type(part).__name__} attacks {takes} samples; {settings.task} has {task.modality} samples"
            )
        part.check(task.num_classes, task.sample_shape)
    if built is not None:
        _ = [attack_(made, generator(0, "check")) for _, folder, attack_ in built.parts if folder == "attacks/update"]
    if empty := [client for client, rows in enumerate(partitions(settings)) if not len(rows)]:
        raise BadSettings(
            f"--partition {settings.partition} leaves client {empty[0]} without data ({len(empty)} of "
            f"{settings.num_clients} clients); take fewer clients or another partition"
        )
    network = model(settings, task)
    with torch.inference_mode():
        network.eval()(task.samples("test", torch.arange(min(2, len(task.test)))).x)


__all__ = ["Attack", "BadSpec", "attack", "check", "load_task", "model", "partitions", "resolve", "role", "strategy"]
