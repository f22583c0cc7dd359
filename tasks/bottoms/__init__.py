"""Bottom models of vertical learning, one a file: `NAME(block_shape, embedding_size, *, options) -> nn.Module`.

A party's network takes its part of the samples, (n, *block_shape), normalised, and returns embeddings
(n, embedding_size). Initial weights come from torch's current generator, as those of `tasks.models` do. They are
deterministic, without dropout or batch norm: a party that computes an embedding again, to learn from its gradient, has
the same one. `bottom` puts one behind the columns that a party holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

from thornbed.tasks.models import normalised

Bottom = Callable[[tuple[int, ...], int], nn.Module]


def bottom(
    make: Bottom,
    block: tuple[int, ...],
    block_shape: tuple[int, ...],
    embedding_size: int,
    *,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    sample_shape: tuple[int, ...] = (),
) -> nn.Module:
    """Return the network of `make` for the columns (n, c) of a block, decoded: shaped, then normalised.

    mean, std: of the task, as in `tasks.Task`, one entry per channel of images, or per feature of tables, of which the
    block's are taken; columns of images, whose sample_shape is (C, H, W), belong to channels. Raises ValueError for an
    embedding below 1 and a shape that has not c entries.
    """
    if embedding_size < 1:
        raise ValueError(f"a bottom model needs embedding_size >= 1: embedding_size = {embedding_size}")
    if math.prod(block_shape) != len(block):
        raise ValueError(f"a block of {len(block)} columns has no shape {block_shape}")
    if len(block_shape) == 1 and len(mean) > 1:
        entries = math.prod(sample_shape[1:]) if len(sample_shape) == 3 else 1  # columns of a channel lie together
        mean, std = (tuple(values[column // entries] for column in block) for values in (mean, std))
    elif len(block_shape) == 1 and mean:
        mean, std = mean * len(block), std * len(block)
    network = normalised(make(block_shape, embedding_size), mean, std)
    return nn.Sequential(nn.Unflatten(1, block_shape), network)
