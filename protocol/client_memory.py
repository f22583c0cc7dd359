"""Where a client's things lie between two messages: in `context.state`, or in the memory of one process.

Flower gives a client app the same `Context` with every message of a run; only records survive in it, since each
message may be answered by another process. An engine of one process hands over a `LivingContext` instead, and the
things themselves stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from flwr.app import Context
from torch import Tensor

from thornbed.protocol.vector import to_arrays, to_tensors

Thing = TypeVar("Thing")
Tensors = Mapping[str, Tensor]


class ClientMemory(Protocol):
    """Things by name, each of which tensors can stand for."""

    def put(self, name: str, thing: Thing, tensors: Callable[[Thing], Tensors]) -> None:
        """Put a thing in place of an earlier one of that name; `tensors` turns the thing into tensors by name."""
        ...

    def get(self, name: str, restored: Callable[[Tensors], Thing]) -> Thing | None:
        """Return the thing of a name; None where there is none. `restored` makes a thing of tensors again."""
        ...

    def drop(self, name: str) -> None:
        """Forget a thing; one that is not there is forgotten already."""
        ...

    def names(self) -> list[str]:
        """Return the names of all things that are there."""
        ...


class LivingMemory:
    """Things as they are, in one process."""

    def __init__(self) -> None:
        self._things: dict[str, Any] = {}

    def put(self, name: str, thing: Thing, tensors: Callable[[Thing], Tensors]) -> None:
        """Keep the thing itself."""
        self._things[name] = thing

    def get(self, name: str, restored: Callable[[Tensors], Thing]) -> Thing | None:
        """Return the thing itself."""
        return self._things.get(name)

    def drop(self, name: str) -> None:
        """Forget a thing."""
        self._things.pop(name, None)

    def names(self) -> list[str]:
        """Return the names of all things."""
        return list(self._things)


class RecordMemory:
    """Things as array records of `context.state`."""

    def __init__(self, context: Context) -> None:
        self._records = context.state

    def put(self, name: str, thing: Thing, tensors: Callable[[Thing], Tensors]) -> None:
        """Keep the thing's tensors."""
        self._records[name] = to_arrays(tensors(thing))

    def get(self, name: str, restored: Callable[[Tensors], Thing]) -> Thing | None:
        """Return a thing made of the tensors that were kept."""
        record = self._records.array_records.get(name)
        return None if record is None else restored(to_tensors(record))

    def drop(self, name: str) -> None:
        """Forget a thing."""
        if name in self._records:
            del self._records[name]

    def names(self) -> list[str]:
        """Return the names of all array records."""
        return list(self._records.array_records)


class LivingContext(Context):
    """A context whose client answers every message in one process, and keeps its things there."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.memory = LivingMemory()


def memory_of(context: Context) -> ClientMemory:
    """Return where the client of a context keeps its things."""
    return context.memory if isinstance(context, LivingContext) else RecordMemory(context)
