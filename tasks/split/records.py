"""What a party holds, by sample id."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Records:
    """A party's part of the samples: ids (N,) int64, each once, in any order, and x (N, c), decoded.

    Raises ValueError for another number of ids than rows, and for an id that stands twice.
    """

    ids: Tensor
    x: Tensor
    _sorted: Tensor = field(init=False, repr=False)
    _order: Tensor = field(init=False, repr=False)
    _counting: bool = field(init=False, repr=False)  # ids are 0, 1, 2, ... in order: an id is its own place

    def __post_init__(self) -> None:
        if self.ids.ndim != 1 or self.ids.dtype != torch.int64 or len(self.ids) != len(self.x):
            raise ValueError(
                f"records need one int64 id a row: {self.ids.dtype} {tuple(self.ids.shape)}, {len(self.x)} rows"
            )
        ordered, order = self.ids.sort()
        if bool((again := ordered[1:] == ordered[:-1]).any()):
            raise ValueError(f"records have id {int(ordered[1:][again][0])} twice ({int(again.sum())} such)")
        object.__setattr__(self, "_sorted", ordered)
        object.__setattr__(self, "_order", order)
        object.__setattr__(self, "_counting", bool((self.ids == torch.arange(len(self.ids))).all()))

    @property
    def in_order(self) -> Tensor:
        """The rows (N, c) by ascending id: the order that parties with the same samples have in common."""
        return self.x[self._order]

    def ranks(self, ids: Tensor) -> Tensor:
        """Return where the ids (b,) stand in that order, (b,) int64; raises ValueError for one that is not here."""
        last = len(self._sorted) - 1
        found = ids.clamp(0, last) if self._counting else torch.searchsorted(self._sorted, ids).clamp(max=last)
        if bool((missing := self._sorted[found] != ids).any()):
            raise ValueError(f"there is no record of id {int(ids[missing][0])} here ({int(missing.sum())} such)")
        return found

    def take(self, ids: Tensor) -> Tensor:
        """Return the rows (b, c) of the ids (b,), in their order."""
        ranks = self.ranks(ids)
        return self.x.index_select(0, ranks if self._counting else self._order[ranks])
