"""PNG files that a report may show: read from folders of others, so looked at before they are taken."""

from __future__ import annotations

import base64
from pathlib import Path

PNG = b"\x89PNG\r\n\x1a\n"
LARGEST_PICTURE = 4_000_000


def read_picture(path: Path) -> bytes:
    """Return a PNG file; empty where there is none, where it is too large, or where it begins as no PNG does."""
    if not path.is_file() or path.stat().st_size > LARGEST_PICTURE:
        return b""
    content = path.read_bytes()
    return content if content.startswith(PNG) and len(content) > 24 else b""


def data(picture: bytes) -> str:
    """Return a picture as the address of an image."""
    return "data:image/png;base64," + base64.b64encode(picture).decode()


def size(picture: bytes) -> tuple[int, int]:
    """Return width and height as the PNG's header says."""
    return int.from_bytes(picture[16:20]), int.from_bytes(picture[20:24])
