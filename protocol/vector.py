"""A model's arrays as one flat float32 vector, and back.

The vector holds every floating-point entry in the order of the state dictionary, running statistics of batch norm
included: an attacker could act through an entry that is averaged blindly. Integer entries (batch counters) stay as
the server has them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from io import BytesIO

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from torch import Tensor


@dataclass(frozen=True)
class Entry:
    """One array of a model: its name, shape and numpy dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @cached_property
    def floating(self) -> bool:
        """Whether the entry is part of the vector."""
        return np.dtype(self.dtype).kind == "f"

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
    """Which arrays a model has, in order: what the vector means, and what a reply has to match."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, arrays: ArrayRecord) -> Layout:
        """Read the layout off a model's arrays."""
        return cls(tuple(_entry(name, tuple(array.shape), array.dtype) for name, array in arrays.items()))

    @property
    def dimension(self) -> int:
        """Length d of the vector."""
        return sum(entry.size for entry in self.entries if entry.floating)

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
        """Return the floating entries as one float32 vector (d,), written into `out` where one is given.

        Raises ValueError where an array's bytes are not what its header promises.
        """
        vector = torch.empty(self.dimension) if out is None else out
        window, start = vector.numpy(), 0
        for entry in self.entries:
            if entry.floating:
                window[start : start + entry.size] = _values(arrays[entry.name], entry).reshape(-1)
                start += entry.size
        return vector

    def unflatten(self, vector: Tensor, base: ArrayRecord) -> ArrayRecord:
        """Return arrays with the vector's values; integer entries are taken from `base`."""
        arrays: dict[str, Array] = {}
        start = 0
        for entry in self.entries:
            if entry.floating:
                piece = vector[start : start + entry.size].reshape(entry.shape)
                arrays[entry.name] = _array(entry.name, piece.numpy().astype(entry.dtype, copy=False))
                start += entry.size
            else:
                arrays[entry.name] = base[entry.name]
        return ArrayRecord(arrays)


def _values(array: Array, entry: Entry) -> np.ndarray:
    """Return an array's values as a view of its bytes, after its own header has been compared with the layout.

    The header comes first because it is the sender's claim: numpy allocates what a header asks for before it reads.
    """
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
    """Turn a state dictionary into the arrays that travel."""
    arrays = ArrayRecord()  # filled by name, as it would copy every array of a dictionary that it is made from
    for name, tensor in tensors.items():
        arrays[name] = _array(name, tensor.detach().cpu().numpy())
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
    return {entry.name: torch.tensor(_values(arrays[entry.name], entry)) for entry in Layout.of(arrays).entries}
