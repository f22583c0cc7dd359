"""The options of a plug-in that take numbers: every suite gives them numbers that are none, or out of range."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from typing import Any


def options_of(plugin: Callable[..., Any], wanted: type) -> list[str]:
    """Return the keyword options of a function or class that take a value of a type, also where None is one too.

    An option that is annotated `tuple[int, ...]` takes a tuple and no int.
    """
    parameters = inspect.signature(plugin).parameters.values()
    hints = _hints(plugin)
    return [each.name for each in parameters if each.kind is each.KEYWORD_ONLY and _takes(hints[each.name], wanted)]


def _hints(plugin: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations by name: a dataclass has them on its fields, another class on its constructor."""
    of_class = typing.get_type_hints(plugin)
    return of_class | typing.get_type_hints(plugin.__init__) if isinstance(plugin, type) else of_class


def _takes(hint: Any, wanted: type) -> bool:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return any(_takes(each, wanted) for each in typing.get_args(hint))
    return hint is wanted or typing.get_origin(hint) is wanted
