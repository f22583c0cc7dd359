"""The matrix of client updates as a rule is given it: checked once, then passed over by ranges of columns.

Every rule begins with `update_matrix`, which refuses bad input with a sentence, and works through `over_columns`, which
hands out ranges of columns to `torch.get_num_threads()` threads. The ranges do not depend on the number of threads,
so neither does any result.

Memory: a matrix whose rows are contiguous (whatever the stride between rows) is read in place. Any other layout, for
example the transpose of a (d, n) tensor, is copied range by range, which costs time (two to four times as long) but no
more memory than one range a thread.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

T = TypeVar("T")
Floats = NDArray[np.floating[Any]]
"""Numbers of float32, or of float64 where the model's are."""

# The largest update, in either precision: squares of float32 can be summed in float64, those of float64 cannot.
LARGEST = float(np.finfo(np.float32).max)

# 20 rows of 65,536 columns are 5 MB: long enough to hide what Python costs per range, short enough to share evenly.
_RANGE = 1 << 16


def update_matrix(rule: str, updates: Tensor, weights: Tensor) -> Floats:
    """Check what the rule named `rule` was given and return the updates as a read-only (n, d) matrix on the CPU.

    The matrix shares the memory of a CPU tensor; a tensor on another device is copied. Rows are taken to be finite:
    replies with a NaN or an infinity are refused before a rule sees them, and nothing here looks again.

    Raises ValueError when `updates` is not a matrix of float32 or float64 of at least one row and one column, has a
    float64 beyond `LARGEST`, or when `weights` is not one floating-point number a row.
    """
    if updates.ndim != 2:
        raise ValueError(
            f"{rule} needs updates of 2 dimensions (n, d): got {updates.ndim}, shape {list(updates.shape)}"
        )
    if updates.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{rule} needs updates of torch.float32 or torch.float64: got {updates.dtype}")
    n, d = updates.shape
    if n < 1 or d < 1:
        raise ValueError(f"{rule} needs n >= 1 clients and d >= 1 parameters: n = {n}, d = {d}")
    if weights.ndim != 1 or len(weights) != n:
        raise ValueError(f"{rule} needs one weight a client: n = {n}, weights of shape {list(weights.shape)}")
    if not weights.is_floating_point():
        raise ValueError(f"{rule} needs weights that are floating-point shares: got {weights.dtype}")
    matrix: Floats = updates.detach().cpu().numpy().view()
    if matrix.dtype == np.float64 and not (matrix.min() >= -LARGEST and matrix.max() <= LARGEST):
        raise ValueError(f"{rule} needs float64 updates of values within {LARGEST:g}, the largest of float32")
    matrix.flags.writeable = False  # a kernel compiled for read-only memory cannot change it even by mistake
    return matrix


def like(updates: Tensor, values: Floats) -> Tensor:
    """Give `values` (d,) back as a tensor of their own precision on the device of `updates`."""
    return torch.from_numpy(values).to(updates.device)


def over_columns(matrix: Floats, work: Callable[[Floats, int, slice], T]) -> list[T]:
    """Call `work(flat, stride, columns)` for every range of columns, on all threads; the answers come in column order.

    `flat[i * stride + k]` is `matrix[i, columns][k]`: one flat contiguous array is what lets a compiler vectorise.
    `work` must release the interpreter lock to gain from the threads.
    """

    def one_range(start: int) -> T:
        columns = slice(start, min(start + _RANGE, matrix.shape[1]))
        return work(*_flat(matrix[:, columns]), columns)

    starts = range(0, matrix.shape[1], _RANGE)
    threads = min(torch.get_num_threads(), len(starts))
    if threads == 1:
        return [one_range(start) for start in starts]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one_range, starts))


def _flat(piece: Floats) -> tuple[Floats, int]:
    """View a piece of the matrix as one flat array and the distance between its rows; copy it only if it must be."""
    n, width = piece.shape
    if piece.strides[1] != piece.itemsize or piece.strides[0] < 0:
        piece = np.ascontiguousarray(piece)
    stride = piece.strides[0] // piece.itemsize
    length = (n - 1) * stride + width
    flat = np.lib.stride_tricks.as_strided(piece, (length,), (piece.itemsize,), writeable=False)
    return flat, stride
