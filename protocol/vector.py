"""A model's arrays as one flat vector, and back.

The vector holds the parameters in the order of the state dictionary: what a rule votes on, masks or adds noise to is
what training steps move. The other floating entries, such as the running statistics of batch norm, are measured and not
learned; they make a second vector, which no rule sees. Integer entries (batch counters) stay as the server has them.

A vector is float64 where one of its entries is, and float32 otherwise, which holds every float16 exactly. An entry is
cast back to its own dtype, where a number may be too large: `Layout.not_finite` is asked of what comes out.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from io import BytesIO

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from torch import Tensor

STATISTICS = frozenset({"running_mean", "running_var"})
"""The last names by which statistics are known where nobody names them: those of torch's layers."""


FLOATING = frozenset({"float16", "float32", "float64"})
"""The dtypes of parameters and statistics."""


LARGEST = float(np.finfo(np.float32).max)
"""The size up to which a client's values are taken, in whatever precision."""

COUNTING = ("int", "uint", "bool")
"""What the dtypes of counters begin with."""


@dataclass(frozen=True)
class Entry:
    """One array of a model: its name, shape and numpy dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @cached_property
    def floating(self) -> bool:
        """Whether its values are floating-point numbers of a kind that a vector holds."""
        return self.number in FLOATING

    @cached_property
    def number(self) -> str:
        """What numpy calls its dtype, whatever the order of its bytes; empty where numpy has none such."""
        try:
            return np.dtype(self.dtype).newbyteorder("=").name
        except (TypeError, ValueError, SyntaxError):  # numpy reads parts of a name, as those of "f4,(", like Python
            return ""

    @property
    def last_name(self) -> str:
        """What its own module calls it: `running_mean` of `norm1.running_mean`."""
        return self.name.rpartition(".")[2]

    @cached_property
    def size(self) -> int:
        """Number of scalars."""
        return math.prod(self.shape)

    @cached_property
    def num_bytes(self) -> int:
        """Length of its values in bytes."""
        return self.size * np.dtype(self.dtype).itemsize

    @cached_property
    def header(self) -> bytes:
        """What numpy writes before such an array; comparing it is far quicker than reading one, and copying too."""
        stream = BytesIO()
        descr = np.lib.format.dtype_to_descr(np.dtype(self.dtype))
        content = {"descr": descr, "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(stream, content)
        return stream.getvalue()


@dataclass(frozen=True)
class Layout:
    """Which arrays a model has, in order: what the vectors mean, and what a reply has to match.

    Attributes
    ----------
    entries : all arrays.
    parameters : the floating ones that training steps move.
    statistics : the other floating ones.
    """

    entries: tuple[Entry, ...]
    parameters: tuple[Entry, ...]
    statistics: tuple[Entry, ...]

    @classmethod
    def of(cls, arrays: ArrayRecord, statistics: Collection[str] | None = None) -> Layout:
        """Read the layout off a model's arrays.

        `statistics` are the names of the floating arrays that are no parameters; integer ones among them change
        nothing. None: those whose last name is one of `STATISTICS`. Raises ValueError for a name that no array has.
        """
        if unknown := sorted(set(statistics or ()) - set(arrays)):
            raise ValueError(f"statistics are named by the model's arrays, and there is none called {unknown[0]}")
        entries = tuple(_entry(name, tuple(array.shape), array.dtype) for name, array in arrays.items())
        apart = {entry.name for entry in entries if entry.last_name in STATISTICS} if statistics is None else statistics
        floating = [entry for entry in entries if entry.floating]
        return cls(
            entries,
            parameters=tuple(entry for entry in floating if entry.name not in apart),
            statistics=tuple(entry for entry in floating if entry.name in apart),
        )

    @property
    def dimension(self) -> int:
        """Length d of the vector of parameters."""
        return sum(entry.size for entry in self.parameters)

    @property
    def num_statistics(self) -> int:
        """Length b of the vector of statistics; 0 for a model without any."""
        return sum(entry.size for entry in self.statistics)

    @cached_property
    def dtype(self) -> torch.dtype:
        """The precision of the vector of parameters."""
        return _precision(self.parameters)

    @cached_property
    def statistics_dtype(self) -> torch.dtype:
        """The precision of the vector of statistics."""
        return _precision(self.statistics)

    def unlearnable(self) -> str | None:
        """Say which array is neither of numbers that a vector holds nor a counter, or None where there is none.

        bfloat16 and the like, which numpy has not, travel as bytes that nothing here can read.
        """
        for entry in self.entries:
            if not entry.floating and not entry.number.startswith(COUNTING):
                return (
                    f"array {entry.name} is {entry.dtype}: arrays of {', '.join(sorted(FLOATING))} are aggregated, "
                    "those of integers and booleans stay as they are, and a model of others is cast before it travels"
                )
        return None

    def not_finite(self, arrays: ArrayRecord) -> tuple[str, int] | None:
        """Return the first floating array with values that are not finite, and how many it has; None without any."""
        for entry in self.parameters + self.statistics:
            if number := int((~np.isfinite(_values(arrays[entry.name], entry))).sum()):
                return entry.name, number
        return None

    def mismatch(self, arrays: ArrayRecord) -> str | None:
        """Say in a few words how the arrays differ from this layout, or None where they fit."""
        names = {entry.name for entry in self.entries}
        if missing := sorted(names - set(arrays)):
            return f"missing array {missing[0]}"
        if extra := sorted(set(arrays) - names):
            return f"unexpected array {extra[0]}"
        for entry in self.entries:
            array = arrays[entry.name]
            if tuple(array.shape) != entry.shape:
                return f"array {entry.name} has shape {tuple(array.shape)} instead of {entry.shape}"
            if array.dtype != entry.dtype:
                return f"array {entry.name} has dtype {array.dtype} instead of {entry.dtype}"
        return None

    def flatten(self, arrays: ArrayRecord, out: Tensor | None = None) -> Tensor:
        """Return the parameters as one vector (d,) of `dtype`, written into `out` where one is given.

        Raises ValueError where an array's bytes are not what its header promises, one of integers among them.
        """
        for entry in (each for each in self.entries if not each.floating):
            _values(arrays[entry.name], entry)  # nobody reads these: their bytes are looked at here or nowhere
        return _flat(self.parameters, arrays, torch.empty(self.dimension, dtype=self.dtype) if out is None else out)

    def flatten_statistics(self, arrays: ArrayRecord, out: Tensor | None = None) -> Tensor:
        """Return the statistics as one vector (b,) of `statistics_dtype`; see `flatten`."""
        made = torch.empty(self.num_statistics, dtype=self.statistics_dtype) if out is None else out
        return _flat(self.statistics, arrays, made)

    def unflatten(self, vector: Tensor, base: ArrayRecord) -> ArrayRecord:
        """Return arrays with the vector's (d,) values as parameters; statistics and integers are taken from `base`.

        A number that is too large for the dtype of its array becomes an infinity there; see `not_finite`.
        """
        return self._with(_pieces(self.parameters, vector), base)

    def unflatten_statistics(self, vector: Tensor, base: ArrayRecord) -> ArrayRecord:
        """Return arrays with the vector's (b,) values as statistics; parameters and integers are taken from `base`.

        An entry whose values are those of `base` is taken from there too: a constant stays as it is to the last bit,
        also where it is of more bits than the vector.
        """
        before = _pieces(self.statistics, self.flatten_statistics(base))
        moved = {
            name: piece
            for name, piece in _pieces(self.statistics, vector).items()
            if not np.array_equal(piece, before[name])
        }
        return self._with(moved, base)

    def _with(self, changed: Mapping[str, np.ndarray], base: ArrayRecord) -> ArrayRecord:
        """Return the arrays of `base` with other values, cast to their dtypes, where there are some."""
        arrays: dict[str, Array] = {}
        for entry in self.entries:
            values = changed.get(entry.name)
            if values is None:
                arrays[entry.name] = base[entry.name]
            else:
                with np.errstate(over="ignore"):
                    arrays[entry.name] = _array(entry.name, values.astype(entry.dtype, copy=False))
        return ArrayRecord(arrays)


def _precision(entries: Sequence[Entry]) -> torch.dtype:
    return torch.float64 if any(entry.number == "float64" for entry in entries) else torch.float32


def _flat(entries: Sequence[Entry], arrays: ArrayRecord, out: Tensor) -> Tensor:
    window, start = out.numpy(), 0
    for entry in entries:
        window[start : start + entry.size] = _values(arrays[entry.name], entry).reshape(-1)
        start += entry.size
    return out


def _pieces(entries: Sequence[Entry], vector: Tensor) -> dict[str, np.ndarray]:
    """Return the piece of a vector that belongs to each entry, in its shape, by name; they share its memory."""
    pieces, start = {}, 0
    for entry in entries:
        pieces[entry.name] = vector[start : start + entry.size].reshape(entry.shape).numpy()
        start += entry.size
    return pieces


def _values(array: Array, entry: Entry) -> np.ndarray:
    """Return an array's values as a view of its bytes, after its own header has been compared with the layout.

    The header comes first because it is the sender's claim: numpy allocates what a header asks for before it reads.
    """
    if entry.number not in FLOATING and not entry.number.startswith((*COUNTING, "complex", "float")):
        raise ValueError(f"array {entry.name} is {entry.dtype}, which no tensor here is")
    if array.data.startswith(entry.header) and len(array.data) == len(entry.header) + entry.num_bytes:
        return np.frombuffer(array.data, dtype=entry.dtype, offset=len(entry.header)).reshape(entry.shape)
    stream = BytesIO(array.data)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran_order, dtype = read_header(stream)
    except Exception as error:  # numpy's parser of headers answers junk with half a dozen kinds of errors
        raise ValueError(f"array {entry.name} cannot be read") from error
    room = len(array.data) - stream.tell()
    if shape != entry.shape or str(dtype) != entry.dtype or room != entry.size * dtype.itemsize:
        raise ValueError(f"array {entry.name} holds {room} bytes of {dtype} {shape}, not what its record says")
    values = np.frombuffer(array.data, dtype=dtype, offset=stream.tell())
    return values.reshape(shape, order="F" if fortran_order else "C")


def to_arrays(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """Turn a state dictionary into the arrays that travel; raises ValueError for a dtype that numpy has not."""
    arrays = ArrayRecord()  # filled by name, as it would copy every array of a dictionary that it is made from
    for name, tensor in tensors.items():
        try:
            values = tensor.detach().cpu().numpy()
        except TypeError:  # torch's own: numpy has no bfloat16
            raise ValueError(f"{name} is {tensor.dtype}, which cannot travel: cast it to float32 or float16") from None
        arrays[name] = _array(name, values)
    return arrays


def _array(name: str, values: np.ndarray) -> Array:
    """Return what `Array(values)` is, in a third of the time: numpy's header is made once for each entry."""
    entry = _entry(name, values.shape, str(values.dtype))
    return Array(dtype=entry.dtype, shape=entry.shape, stype="numpy.ndarray", data=entry.header + values.tobytes())


@lru_cache(maxsize=4096)
def _entry(name: str, shape: tuple[int, ...], dtype: str) -> Entry:
    return Entry(name, shape, dtype)


def to_tensors(arrays: ArrayRecord) -> dict[str, Tensor]:
    """Turn arrays that came over the wire into tensors of their own; raises ValueError for unreadable bytes."""
    return {entry.name: _tensor(_values(arrays[entry.name], entry), entry) for entry in Layout.of(arrays).entries}


def _tensor(values: np.ndarray, entry: Entry) -> Tensor:
    try:
        return torch.tensor(values if values.dtype.isnative else values.astype(entry.number))
    except TypeError:
        raise ValueError(f"array {entry.name} is {entry.dtype}, which no tensor here is") from None
