"""What a rule remembers of the rounds before, as a vector that it cannot change in place."""

from __future__ import annotations

from typing import Any

import numpy as np

from thornbed.defenses.server import Server
from thornbed.defenses.update_matrix import Floats


def remembered(rule: str, server: Server, name: str, d: int, dtype: np.dtype[Any]) -> Floats:
    """Return the entry `name` (d,) of the server's memory, read-only; zeros where there is none yet.

    Raises ValueError, with the name of the rule, where the entry is not a vector of d numbers of this dtype.
    """
    kept = server.memory.get(name)
    vector: Floats = np.zeros(d, dtype) if kept is None else kept.detach().cpu().numpy().view()
    if vector.shape != (d,) or vector.dtype != dtype:
        raise ValueError(
            f"{rule} remembers a {name} of shape {list(vector.shape)}, {vector.dtype}: "
            f"these updates have d = {d}, {dtype}"
        )
    vector.flags.writeable = False
    return vector
