"""Reading a file that may be compressed, whatever its name says: its first bytes tell."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path


def _only_file(content: bytes) -> bytes:
    with zipfile.ZipFile(BytesIO(content)) as archive:
        if len(names := archive.namelist()) != 1:
            raise ValueError(f"the archive holds {len(names)} files, expected one")
        return archive.read(names[0])


BEGINNINGS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ\x00": lzma.decompress,
    b"PK\x03\x04": _only_file,
}

# NotImplementedError and RuntimeError are of zip archives that are encrypted, or packed in another way.
FAULTS = (OSError, EOFError, ValueError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


def unpacked(path: Path) -> bytes:
    """Return what is in a file, of one that gzip, bzip2, xz or zip made what they packed.

    Raises ValueError with the file for one that cannot be read, or is damaged.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file")
    try:
        content = path.read_bytes()
        unpack = next((unpack for start, unpack in BEGINNINGS.items() if content.startswith(start)), None)
        return content if unpack is None else unpack(content)
    except FAULTS as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
