"""Linear layers with ReLU between them, for the columns of a table, or for parts of any shape.

Source: the usual bottom model for tables in SplitNN: I. Ceballos et al., "SplitNN-driven Vertical Partitioning", 2020.
"""

from __future__ import annotations

from torch import nn

from thornbed.tasks.models.mlp import mlp


def column_layers(block_shape: tuple[int, ...], embedding_size: int, *, hidden: tuple[int, ...] = (64,)) -> nn.Module:
    """Return the network; `hidden` are the units of its hidden layers, none of them for a linear one."""
    return mlp(block_shape, embedding_size, hidden=hidden)
