"""A run of horizontal learning, built once: its data by client, its model, its rule, its roles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from typing import Any, cast

import numpy as np
import torch
from flwr.app import ArrayRecord
from torch import Tensor, nn

from thornbed.attacks.data import GroupMember
from thornbed.clients.role import Role
from thornbed.defenses.server import Rule, Server, aggregate
from thornbed.flower_apps.run.client import attack_text, is_malicious
from thornbed.flower_apps.run.run import Run, load_task
from thornbed.flower_apps.run.stored_model import stored_model
from thornbed.flower_apps.schemes.horizontal.roles import Attack, Defense, attack_of, is_attacked
from thornbed.flower_apps.settings import BadSettings, Resolved, plugins
from thornbed.protocol.randomness import derived_seed, generator
from thornbed.protocol.vector import Layout
from thornbed.strategies import FedAvg, NumberedClients
from thornbed.strategies._cohort import Cohort
from thornbed.tasks import Samples
from thornbed.tasks.models import channels_last, embedded, normalised


class HorizontalRun(Run):
    """What runs have in which clients hold samples of their own and train one model."""

    def __init__(self, settings: Resolved) -> None:
        super().__init__(settings)
        self._roles: dict[Any, Role] = {}

    @cached_property
    def partitions(self) -> list[np.ndarray]:
        """The training rows of every client."""
        settings = self.settings
        seed = derived_seed(settings.seed, "partition") % 2**32
        return _partitions(settings.task, settings.data_dir, settings.partition, settings.num_clients, seed)

    def client_samples(self, client: int) -> Samples:
        """Return a client's own training rows, decoded, before anybody has touched them."""
        return self.task.samples("train", torch.from_numpy(self.partitions[client]))

    def root_samples(self, num_samples: int) -> Samples:
        """Return the server's own samples, drawn once; raises BadSettings where the task has not so many."""
        task, settings = self.task, self.settings
        if not 1 <= num_samples <= len(task.train):
            raise BadSettings(
                f"--strategy {settings.strategy} asks for {num_samples} trusted samples; --task {settings.task} has 1 "
                f"to {len(task.train)}"
            )
        order = torch.randperm(len(task.train), generator=generator(settings.seed, "root"))
        return task.samples("train", order[:num_samples])

    @cached_property
    def network(self) -> nn.Module:
        """One network for this process: whoever uses it loads a whole state first, so that all can take turns."""
        return self.new_model()

    def new_model(self) -> nn.Module:
        """Build the model with initial weights that depend on the seed alone."""
        task = self.task
        make = plugins.load("model", self.settings.model)
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would seed every GPU too, and the fork gives back the CPU's generator alone
            torch.default_generator.manual_seed(derived_seed(self.settings.seed, "model"))
            built: nn.Module = make(task.input_shape, task.num_classes)
        network = normalised(built, task.mean, task.std)
        if task.vectors is not None:
            network = embedded(network, task.vectors)
        return channels_last(network) if task.modality == "image" else network

    @cached_property
    def statistics(self) -> frozenset[str]:
        """The floating entries of the network's state that are no parameters: what its layers measure."""
        return statistics_of(self.network)

    def layout(self, arrays: ArrayRecord) -> Layout:
        """Return which of a model's arrays are parameters, in which order: what an update means."""
        return Layout.of(arrays, self.statistics)

    def starting_model(self) -> dict[str, Tensor]:
        """Return the tensors that a run begins with: those of a new model, or of the file that --start-from names.

        Raises BadSettings where that is not there, is no safetensors file, does not fit, or has values that are not
        finite.
        """
        own: dict[str, Tensor] = self.new_model().state_dict()
        return stored_model(self.settings, own)[0] if self.settings.start_from else own

    @cached_property
    def attack(self) -> Attack | None:
        """The attack of the run; None without one."""
        return attack_of(self.settings.attack, self.base)

    @cached_property
    def defense(self) -> Defense:
        """The defense on the clients."""
        return Defense.of(self.defenses)

    @cached_property
    def strategy(self) -> FedAvg:
        """The strategy, which remembers its rounds: that of the one federation that the run is."""
        return self.new_strategy()

    def new_strategy(self) -> FedAvg:
        """Build the strategy."""
        built = strategy_of(self.settings.strategy, self.cohort(), self.settings.min_replies)
        built.seed = self.settings.seed
        return built

    def attack_on(self, node_config: Mapping[str, Any]) -> Attack | None:
        """Return the attack of a malicious client: the run's, or in deployment one that its node names."""
        text = attack_text(self.settings, node_config)
        return self.attack if text == self.settings.attack else attack_of(text, self.base)

    def role(self, client: int, node_config: Mapping[str, Any], server_round: int | None = None) -> Role:
        """Return the role of a client in a round; in a round that is not attacked malicious clients are honest.

        server_round : None of a round that is attacked. In deployment the node's own `--node-config` decides:
        `role="malicious"`, with the run's attack or an `attack` of its own; without it the node is honest. In the
        other engines the run's settings decide.
        """
        attacked = server_round is None or is_attacked(self.settings, server_round)
        key = (client, attacked, *sorted(node_config.items()))
        if key not in self._roles:
            self._roles[key] = self._role(client, node_config, attacked)
        return self._roles[key]

    def _role(self, client: int, node_config: Mapping[str, Any], attacked: bool) -> Role:
        settings = self.settings
        malicious = is_malicious(settings, client, node_config)
        if self.deployed:
            # Nobody knows here who else attacks: the node's own number stands for its number among its like.
            member = GroupMember(client, settings.num_clients)
        else:
            alike = [each for each in range(settings.num_clients) if (each in settings.malicious) == malicious]
            member = GroupMember(alike.index(client), len(alike))
        built = self.attack_on(node_config) if malicious else self.attack
        if malicious and attacked and built is not None:
            return built.role(member)
        return self.defense.benign(built.leaking if built is not None and not malicious else [], member)

    def honest_role(self, client: int) -> Role:
        """Return the role that a client would have if it were honest."""
        if self.deployed or client in self.settings.malicious:
            return self.defense.benign()
        return self.role(client, {})


def statistics_of(network: nn.Module) -> frozenset[str]:
    """Return the names of the floating entries of a network's state that are no parameters."""
    learned = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    entries = network.state_dict().items()
    return frozenset(name for name, value in entries if value.is_floating_point() and name not in learned)


@lru_cache(maxsize=4)
def _partitions(task: str, data_dir: str, partition: str, num_clients: int, seed: int) -> list[np.ndarray]:
    labels = load_task(task, data_dir).train.y.numpy()
    return list(plugins.load("partition", partition)(labels, num_clients, seed))


def strategy_of(text: str, cohort: Cohort, min_replies: int) -> FedAvg:
    """Build the strategy that a spec names: a class of strategies/, or FedAvg with a rule of defenses/aggregation."""
    spec = plugins.parse(text)
    made = plugins.load("strategy", spec)
    if plugins.available("strategy")[spec.name] == "strategies":
        return cast(FedAvg, made(cohort, min_replies))
    return FedAvg(cohort, min_replies, rule=made)


def least_replies(strategy: str, per_round: int) -> int:
    """Return half of a round, or the more that the rule needs: krum(num_byzantine=4) works with 11 and not with 10."""
    return replies_for(strategy_of(strategy, NumberedClients(per_round, per_round), 1).rule, per_round)


def replies_for(rule: Rule, per_round: int) -> int:
    """Return half of a round, or the more that a rule needs."""
    counts = range((per_round + 1) // 2, per_round)
    return next((count for count in counts if refusal(rule, count) is None), per_round)


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
