"""Reading a folder of pictures, in which each class has a folder, as torchvision's ImageFolder does.

Pictures that are all grey have one channel, and otherwise all have three: a palette, CMYK and grey become RGB, and what
is transparent loses its transparency. Grey of 16 bits becomes grey of 8, by its upper byte.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from thornbed.tasks.samples import Samples
from thornbed.tasks.sources.torchvision_files import torchvision_datasets

GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")


def read_pictures(folder: Path, size: int | None) -> tuple[Samples, tuple[str, ...]]:
    """Return the pictures below a folder, (N, C, H, W) uint8, and the names of its classes, sorted.

    size : the side of the square that pictures are resized to; None takes them as they are, all of one size.
    Raises ValueError with the file, for pictures that cannot be read or differ in size, and with the folder for one
    without two classes and a class without a picture.
    """
    try:
        found = torchvision_datasets().ImageFolder(str(folder))
    except (FileNotFoundError, OSError) as error:
        raise ValueError(f"{folder} is no folder of folders with pictures, one for each class: {error}") from error
    if len(found.classes) < 2:
        raise ValueError(f"{folder} has the class {', '.join(found.classes)} alone, expected two or more")
    pictures = [_picture(Path(path), size) for path, _ in found.samples]
    paths = [Path(path) for path, _ in found.samples]
    for path, picture in zip(paths, pictures):
        if picture.shape[:2] != pictures[0].shape[:2]:
            first, other = ("x".join(map(str, each.shape[1::-1])) for each in (pictures[0], picture))
            raise ValueError(
                f"{paths[0]} is {first} pixels and {path} {other}: pictures have one size, or are resized to one by "
                "size=64, say"
            )
    channels = max(picture.shape[2] for picture in pictures)
    x = np.stack([np.repeat(each, channels // each.shape[2], axis=2) for each in pictures])
    y = torch.tensor([label for _, label in found.samples])
    return Samples(torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(), y), tuple(found.classes)


def _picture(path: Path, size: int | None) -> NDArray[np.uint8]:
    """Return a picture (H, W, C) of one channel or three."""
    try:
        with Image.open(path) as opened:
            opened.load()
            if opened.mode in GREY[3:]:  # which PIL would cut off at 255
                wide = np.asarray(opened).astype(np.int64)
                read = Image.fromarray((wide.clip(0, 65535) >> 8).astype(np.uint8))
            else:
                read = opened.convert("L" if opened.mode in GREY else "RGB")
            if size is not None:
                read = read.resize((size, size), Image.Resampling.BILINEAR)
            pixels = np.asarray(read, dtype=np.uint8)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error
    return pixels[..., None] if pixels.ndim == 2 else pixels
