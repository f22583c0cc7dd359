"""One thread of torch for whatever has to give the same bytes in every engine and on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread inside, and as many as before afterwards.

    Sums over several threads are grouped by their number, and so differ in the last bits between machines and
    between engines, which share the cores differently: with one thread every engine sends the same bytes.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
