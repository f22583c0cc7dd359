"""What every division of columns keeps to; a new file of tasks/blocks is covered without a word here."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable

import pytest

import thornbed.tasks.blocks
from thornbed.tasks.blocks import Blocks, check_blocks

NAMES = sorted(module.name for module in pkgutil.iter_modules(thornbed.tasks.blocks.__path__) if module.name[0] != "_")


def division(name: str) -> Callable[..., Blocks]:
    return getattr(importlib.import_module(f"thornbed.tasks.blocks.{name}"), name)


def test_the_folder_is_not_empty() -> None:
    assert {"contiguous", "grid"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_agents", [2, 4, 10])
@pytest.mark.parametrize("sample_shape", [(1, 8, 8), (3, 7, 5), (1, 28, 28)])
def test_every_column_belongs_to_one_of_so_many_agents(name, num_agents, sample_shape) -> None:
    parameters = list(inspect.signature(division(name)).parameters.values())
    assert [parameter.name for parameter in parameters[:2]] == ["sample_shape", "num_agents"]
    assert all(option.kind is option.KEYWORD_ONLY and option.default is not option.empty for option in parameters[2:])
    blocks = division(name)(sample_shape, num_agents)
    check_blocks(blocks, sample_shape)
    assert len(blocks) == num_agents
    assert all(list(block) == sorted(block) for block in blocks)
    assert blocks == division(name)(sample_shape, num_agents)
