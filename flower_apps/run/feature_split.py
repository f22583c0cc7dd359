"""Who holds which features in a run: as a task has it by nature, or as a way of dividing columns says."""

from __future__ import annotations

import importlib
from functools import lru_cache

from thornbed.flower_apps.run import build
from thornbed.flower_apps.settings import BadSettings, Resolved, plugins
from thornbed.tasks.blocks import Blocks, check_blocks

NATURAL = "natural"  # the division that a task has by nature


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


@lru_cache(maxsize=8)
def blocks(settings: Resolved) -> Blocks:
    """Return which columns of a flattened sample each client holds; raises ValueError where that is no division."""
    check_division(settings)
    task = build.load_task(settings.task, settings.data_dir)
    if settings.partition == NATURAL:
        return task.blocks
    divided: Blocks = plugins.load("blocks", settings.partition)(task.sample_shape, settings.num_clients)
    if len(divided) != settings.num_clients:
        raise BadSettings(
            f"--partition {settings.partition} makes {len(divided)} blocks, and every client needs one: --num-clients "
            f"{settings.num_clients}"
        )
    check_blocks(divided, task.sample_shape)
    return divided
