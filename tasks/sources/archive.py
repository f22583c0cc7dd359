"""Reading .npz archives, which may be damaged in as many ways as zip, zlib and NumPy have errors."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_archive(path: Path, keys: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
    """Return the plain arrays of these names that the archive holds, or all of them; nothing is unpickled.

    Raises FileNotFoundError, and ValueError with the file for one that is no such archive, and for a name it lacks.
    """
    wanted = "" if keys is None else f" {list(keys)}"
    said = f"{path} cannot be read as an .npz archive of plain arrays{wanted}"
    try:
        opened = np.load(path, allow_pickle=False)
        if not isinstance(opened, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array")
        with opened:
            names = list(opened.files)
            found = {key: opened[key] for key in names if keys is None or key in keys}
    except FileNotFoundError:
        raise
    except (ValueError, TypeError, KeyError, MemoryError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{said}: {error}") from error
    for key in keys or ():
        if key not in found:
            raise ValueError(f"{said}: it has no array {key}: found {sorted(names)}, expected{wanted}")
    return found
