"""What a client keeps: between two messages, and after each round for a run that goes on.

Flower gives a client app the same `Context` with every message of a run; only records survive in it, since each
message may be answered by another process. An engine of one process hands over a `LivingContext` instead, and the
things themselves stay. After a round tensors are kept in a folder too, since a new Flower run begins with an empty
context. What was kept after a round comes back bit for bit; what is missing is said, and never replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Protocol, TypeVar

from flwr.app import Context
from torch import Tensor

from thornbed.protocol.tensor_files import load_tensors, save_tensors
from thornbed.protocol.vector import to_arrays, to_tensors

Thing = TypeVar("Thing")
Tensors = Mapping[str, Tensor]
HELD, ROUND = "held", "round-"
RUN, CLIENT, AFTER = "run", "client", "after"  # in a file's texts: whose state it is, and after which round


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


class LostState(ValueError):
    """A client has not what it kept after a round; the text says which client, which round, and where it looked."""


class ClientState:
    """What one client keeps.

    Parameters
    ----------
    client : its number.
    memory : where its things lie between messages.
    folder : where its tensors lie after a round; None where nothing names a folder, and the client lasts as long as
        its memory does.
    run : names the run where runs share a folder, so that none goes on from what another one left there; empty where
        the folder is the run's own.
    """

    def __init__(self, client: int, memory: ClientMemory, folder: Path | None, run: str = "") -> None:
        self.client, self.memory, self.folder, self.run = client, memory, folder, run

    def hold(self, thing: Thing, tensors: Callable[[Thing], Mapping[str, Tensor]]) -> None:
        """Hold one thing until the client's next message; `tensors` is what stands for the thing elsewhere."""
        self.memory.put(HELD, thing, tensors)

    def held(self, restored: Callable[[Mapping[str, Tensor]], Thing]) -> Thing | None:
        """Return the thing that was held last; None where there is none. `restored` makes it of its tensors."""
        return self.memory.get(HELD, restored)

    def save(self, server_round: int, tensors: Mapping[str, Tensor], *, after: int = 0) -> None:
        """Keep tensors after a round, beside those after the earlier round `after`, and forget all others.

        after : the last round of which the server took this client's answer, since the server may not take this one's.
        """
        kept = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        earlier = self._remembered_rounds()
        self.memory.put(f"{ROUND}{server_round}", kept, dict)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_tensors(self._path(server_round), kept, self._texts(server_round))
        # A memory that begins knows nothing of files of an earlier process; later on, looking is not worth its time.
        self._drop((earlier if len(earlier) > 1 else self._rounds()) - {server_round, after})

    def forget(self, but: AbstractSet[int] = frozenset()) -> None:
        """Forget what was kept after all rounds but some: by default also what another run left in the folder."""
        self._drop(self._rounds() - but)

    def latest(self, before: int) -> int:
        """Return the latest round before one after which tensors were kept; 0 where there is none."""
        return max((each for each in self._rounds() if each < before), default=0)

    def load(self, after: int) -> dict[str, Tensor] | None:
        """Return the tensors that were kept after a round; None after round 0, when there are none yet.

        after : the last round of which the server took this client's answer; it is in the request.
        Raises LostState where they are neither in memory nor in the folder, cannot be read there, or are another run's.
        """
        if after == 0:
            return None
        if (kept := self.memory.get(f"{ROUND}{after}", dict)) is not None:
            return {name: tensor.clone() for name, tensor in kept.items()}
        try:
            stored = self._stored(after)
        except ValueError as damage:
            said = f"client {self.client} cannot read what it kept after round {after} ({self._path(after)}: {damage})"
            raise LostState(said) from None
        if stored is None:
            where = 'no folder is named for it: state="FOLDER" in --node-config' if self.folder is None else self.folder
            raise LostState(f"client {self.client} has lost what it kept after round {after} ({where})")
        tensors, texts = stored
        for name, text in self._texts(after).items():
            if texts.get(name) != text and (self.run or name != RUN):
                whose = {RUN: "another run's", CLIENT: "another client's", AFTER: "of another round"}[name]
                said = f"client {self.client} has lost what it kept after round {after}"
                raise LostState(f"{said}: what lies in {self._path(after)} is {whose}")
        return tensors

    def saved(self, server_round: int) -> dict[str, Tensor] | None:
        """Return the tensors in the folder of a round, of whichever run; None without, ValueError for damaged ones."""
        stored = self._stored(server_round)
        return None if stored is None else stored[0]

    def saved_rounds(self) -> set[int]:
        """Return the rounds whose tensors lie in the folder."""
        if self.folder is None:
            return set()
        start = f"client-{self.client}-round-"
        told = (path.stem.removeprefix(start) for path in self.folder.glob(f"{start}*.safetensors"))
        return {int(each) for each in told if each.isdecimal()}

    def _texts(self, server_round: int) -> dict[str, str]:
        """Return what a file says of itself."""
        return {RUN: self.run, CLIENT: str(self.client), AFTER: str(server_round)}

    def _stored(self, server_round: int) -> tuple[dict[str, Tensor], Mapping[str, str]] | None:
        try:
            return None if self.folder is None else load_tensors(self._path(server_round))
        except FileNotFoundError:
            return None

    def _rounds(self) -> set[int]:
        return self._remembered_rounds() | self.saved_rounds()

    def _remembered_rounds(self) -> set[int]:
        return {int(name.removeprefix(ROUND)) for name in self.memory.names() if name.startswith(ROUND)}

    def _drop(self, rounds: AbstractSet[int]) -> None:
        for each in rounds:
            self.memory.drop(f"{ROUND}{each}")
            if self.folder is not None:
                self._path(each).unlink(missing_ok=True)

    def _path(self, server_round: int) -> Path:
        assert self.folder is not None
        return self.folder / f"client-{self.client}-round-{server_round}.safetensors"
