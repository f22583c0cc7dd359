"""Runs in which clients hold features of the same samples: who holds which columns, and the networks over them."""

from __future__ import annotations

import importlib
from functools import cached_property

import torch
from torch import Tensor, nn

from thornbed.flower_apps.run.run import Run
from thornbed.flower_apps.settings import BadSettings, Resolved, plugins
from thornbed.protocol.randomness import derived_seed
from thornbed.tasks import Samples, Split
from thornbed.tasks.blocks import Blocks, block_shapes, check_blocks
from thornbed.tasks.bottoms import Bottom, bottom

NATURAL = "natural"  # the division that a task has by nature


class FeatureSplitRun(Run):
    """What runs have in which each client holds columns of the samples and a bottom model over them."""

    @property
    def embedding_size(self) -> int:
        """Numbers that a client sends for a sample; the scheme's strategy says it."""
        raise NotImplementedError

    @cached_property
    def blocks(self) -> Blocks:
        """Which columns of a flattened sample each client holds; raises ValueError where that is no division."""
        settings = self.settings
        check_division(settings)
        if settings.partition == NATURAL:
            return self.task.blocks
        divided: Blocks = plugins.load("blocks", settings.partition)(self.task.sample_shape, settings.num_clients)
        if len(divided) != settings.num_clients:
            raise BadSettings(
                f"--partition {settings.partition} makes {len(divided)} blocks, and every client needs one: "
                f"--num-clients {settings.num_clients}"
            )
        check_blocks(divided, self.task.sample_shape)
        return divided

    def columns(self, split: Split, client: int) -> Tensor:
        """Return a client's columns (N, k) of a split's samples, decoded."""
        samples = self.task.train if split == "train" else self.task.test
        return Samples(samples.x.flatten(1)[:, torch.tensor(self.blocks[client])], samples.y).decoded().x

    @cached_property
    def _make_bottom(self) -> Bottom:
        make: Bottom = plugins.load("bottom", self.settings.model)
        return make

    def bottom_model(self, client: int) -> nn.Module:
        """Build a client's network with first weights that depend on the seed and its number alone."""
        task, block = self.task, self.blocks[client]
        shape = block_shapes([block], task.sample_shape)[0]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derived_seed(self.settings.seed, "bottom", client))
            size, whole = self.embedding_size, task.sample_shape
            return bottom(self._make_bottom, block, shape, size, mean=task.mean, std=task.std, sample_shape=whole)


def natural_agents(task: str) -> int:
    """Return how many agents hold the features of a task by nature, 0 where these belong to nobody; loads no data.

    They are the option `agents` of the task where it is given, else what the task's module calls AGENTS.
    """
    loader = plugins.load("task", task)
    module = importlib.import_module(loader.func.__module__)
    return len(loader.keywords.get("agents", getattr(module, "AGENTS", ())))


def check_division(settings: Resolved) -> None:
    """Refuse a --partition that is no way of dividing features, and agents that are not there; loads no data."""
    if settings.partition != NATURAL:
        plugins.find("blocks", plugins.parse(settings.partition).name)
        return
    agents = natural_agents(settings.task)
    if not agents:
        raise BadSettings(
            f"--partition natural needs features that belong to agents by nature, and --task {settings.task} has "
            f"none; take one of {', '.join(plugins.available('blocks'))}"
        )
    if agents != settings.num_clients:
        raise BadSettings(f"--num-clients is {settings.num_clients}, and --task {settings.task} has {agents} agents")
