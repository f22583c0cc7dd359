"""Who holds which features, one way of dividing them a file: `NAME(sample_shape, num_agents, *, options) -> Blocks`.

Blocks are the columns of a flattened sample, one tuple a party, ascending; every column belongs to exactly one. A task
whose features belong to parties by nature says so in `Task.blocks`. As partitions divide rows, blocks divide columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Block = tuple[int, ...]
Blocks = tuple[Block, ...]


def split(x: Tensor, blocks: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return the columns of each party, (n, c_i), of decoded samples x (n, ...), which are flattened.

    Raises ValueError unless the blocks hold every column of a sample once.
    """
    check_blocks(blocks, tuple(x.shape[1:]))
    flat = x.flatten(1)
    return [flat[:, torch.tensor(list(block), device=x.device)] for block in blocks]


def check_blocks(blocks: Sequence[Sequence[int]], sample_shape: tuple[int, ...]) -> None:
    """Raise ValueError, with the first wrong column, unless every column of a sample is in exactly one block."""
    features = math.prod(sample_shape)
    held = [column for block in blocks for column in block]
    if any(len(block) == 0 for block in blocks):
        empty = next(number for number, block in enumerate(blocks) if len(block) == 0)
        raise ValueError(f"every party needs a column: party {empty} of {len(blocks)} has none")
    if outside := sorted(column for column in held if not 0 <= column < features):
        raise ValueError(f"blocks name column {outside[0]}, and samples {sample_shape} have {features}")
    if len(set(held)) != len(held):
        twice = next(column for column in held if held.count(column) > 1)
        raise ValueError(f"blocks overlap: column {twice} is in {held.count(twice)} of them")
    if len(held) != features:
        left = next(column for column in range(features) if column not in set(held))
        raise ValueError(f"blocks leave out {features - len(held)} of {features} columns, the first is {left}")


@dataclass(frozen=True)
class Patch:
    """A rectangle of an image: the first row and column, and how many of each; of all channels."""

    top: int
    left: int
    height: int
    width: int


def patch_of(block: Sequence[int], sample_shape: tuple[int, ...]) -> Patch | None:
    """Return the rectangle that a block is of samples (C, H, W), in its order; None where it is none.

    Samples of any other shape are one row of a single channel: a run of neighbouring columns is a rectangle of it.
    """
    channels, height, width = sample_shape if len(sample_shape) == 3 else (1, 1, math.prod(sample_shape))
    if not block or len(block) % channels:
        return None
    pixels = [divmod(column, width) for column in block[: len(block) // channels]]
    top, left = pixels[0]
    rows, columns = pixels[-1][0] - top + 1, pixels[-1][1] - left + 1
    if rows < 1 or columns < 1 or rows * columns * channels != len(block):
        return None
    whole = [
        (channel * height + row) * width + column
        for channel in range(channels)
        for row in range(top, top + rows)
        for column in range(left, left + columns)
    ]
    return Patch(top, left, rows, columns) if whole == list(block) else None


def block_shapes(blocks: Sequence[Sequence[int]], sample_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the shape of each party's part: (C, h, w) for a rectangle of an image, else (c,)."""
    shapes: list[tuple[int, ...]] = []
    for block in blocks:
        patch = patch_of(block, sample_shape) if len(sample_shape) == 3 else None
        shapes.append((len(block),) if patch is None else (sample_shape[0], patch.height, patch.width))
    return shapes
