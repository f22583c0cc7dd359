"""Cut images into a grid of patches, one for each party, in the order in which one reads.

Source: the usual division of images in vertical learning, for example Y. Liu, Z. Yi and T. Chen, "Backdoor Attacks and
Defenses in Feature-partitioned Collaborative Learning", 2020, who cut them into halves.
"""

from __future__ import annotations

import numpy as np

from thornbed.tasks.blocks import Blocks


def grid(sample_shape: tuple[int, ...], num_agents: int, *, rows: int = 2) -> Blocks:
    """Return the columns of num_agents patches of images (C, H, W): `rows` of them above each other, all channels.

    Heights and widths differ by at most a pixel, the larger ones first. Raises ValueError for samples that are no
    images, for num_agents that `rows` does not divide, and for more patches than pixels in either direction.
    """
    if len(sample_shape) != 3:
        raise ValueError(f"grid cuts images (C, H, W): a sample has shape {sample_shape}; contiguous divides any")
    if num_agents < 1 or rows < 1 or num_agents % rows:
        hint = "; grid(rows=1) takes any number of them" if num_agents > 0 else ""
        raise ValueError(f"grid needs rows that divide num_agents: num_agents = {num_agents}, rows = {rows}{hint}")
    _, height, width = sample_shape
    across = num_agents // rows
    if rows > height or across > width:
        raise ValueError(f"grid cannot cut {height} x {width} pixels into {rows} x {across} patches")
    columns = np.arange(int(np.prod(sample_shape))).reshape(sample_shape)
    patches = [
        patch for band in np.array_split(columns, rows, axis=1) for patch in np.array_split(band, across, axis=2)
    ]
    return tuple(tuple(patch.ravel().tolist()) for patch in patches)
