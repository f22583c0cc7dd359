"""Files that are written whole or not at all: whatever stops a process or the machine, a file is the old or the new."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""Numbers of an OSError that say that nothing more can be written there: the fault is the disk's, not the run's."""


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield the path of a new file to write, which takes the place of `path` at the end, safe from a loss of power.

    The folder is there already. Where writing fails nothing is left of the new file.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # others may write the same file
    try:
        yield part
        sync(part)
        part.replace(path)
        sync(path.parent)
    except BaseException as failure:
        part.unlink(missing_ok=True)
        if isinstance(failure, OSError) and failure.errno in NO_ROOM:  # which of a write names no file
            raise OSError(failure.errno, failure.strerror, str(path)) from failure
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all; what has no form in UTF-8 becomes a question mark."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8", errors="replace")


def append_text(path: Path, text: str) -> None:
    """Add a text in UTF-8 to the end of a file, safe from a loss of power."""
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(text)
        sync(path)
    except OSError as failure:
        raise OSError(failure.errno, failure.strerror, str(path)) from failure


def sync(path: Path) -> None:
    """Return when a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def no_room(failure: BaseException) -> str:
    """Return a sentence for an error that says that nothing more can be written; empty for any other."""
    if not isinstance(failure, OSError) or failure.errno not in NO_ROOM:
        return ""
    where = Path(str(failure.filename)).parent if failure.filename else "the disk"
    return f"{where} cannot be written ({failure.strerror or failure})"
