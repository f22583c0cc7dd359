"""Where a trigger lies and how adversaries divide it: one over neighbouring blocks, or a small one in each.

Paper: Lee et al., "Cooperative Decentralized Backdoor Attacks on Vertical Federated Learning", 2025, Section IV-B,
Figure 3 and Equation 5: the background W, of ones, is multiplied by the intensity, and M puts a cross of zeros on it.
As printed M is added, and zeros added would change nothing: here M is what makes the pattern 0 on the cross. A cross is
a middle row and a middle column; a pattern without such, one side of which is even or below 3, has none.

A sample of a table is one row of a single channel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from thornbed.tasks.blocks import Block

Size = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Trigger:
    """What one adversary does to its part of a sample: x -> keep * x + add, with one of q pairs, drawn at random.

    keep and add are (q, c). Where it has no portion of a trigger keep is 1 and add 0 everywhere.
    """

    keep: Tensor
    add: Tensor

    def stamped(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return x (n, c) with the trigger, a place of its own for each row."""
        drawn = torch.randint(len(self.keep), (len(x),), generator=generator).to(x.device)
        return self.keep.to(x)[drawn] * x + self.add.to(x)[drawn]


def crossed(size: Size, intensity: float) -> Tensor:
    """Return the pattern (h, w) that is added: the intensity, and 0 on the cross."""
    pattern = torch.full(size, float(intensity))
    if min(size) >= 3 and size[0] % 2 and size[1] % 2:
        pattern[size[0] // 2, :] = 0
        pattern[:, size[1] // 2] = 0
    return pattern


def one_trigger(
    blocks: Mapping[int, Block],
    sample_shape: tuple[int, ...],
    pattern: Tensor,
    *,
    center: Size | None = None,
    overwrites: bool = False,
) -> dict[int, Trigger]:
    """Return each adversary's portion of one pattern (h, w), of all channels: the pixels that lie in its block.

    center: the row and column of its middle pixel, (h // 2, w // 2) of it; None: the place nearest to the middle of all
    that adversaries hold, the first of equal ones, where every pixel of it is theirs. overwrites: the pattern takes the
    place of what was there, and is not added. Raises ValueError where no such place is, or the one named is none.
    """
    channels, height, width = _image(sample_shape)
    (tall, wide), owned = tuple(pattern.shape), _owned(list(blocks.values()), sample_shape)
    places = _places(owned, (tall, wide))
    if center is not None:
        named = (center[0] - tall // 2, center[1] - wide // 2)
        if named not in places:
            raise ValueError(
                f"a trigger of {tall} x {wide} around {center} does not lie in the adversaries' blocks alone; "
                "choose another center or size, or a subtrigger in each block (method = 2)"
            )
        places = [named]
    if not places:
        raise ValueError(
            f"no place of {tall} x {wide} lies in the adversaries' blocks alone, which hold {int(owned.sum())} of "
            f"{height} x {width} pixels; choose a smaller size, or a subtrigger in each block (method = 2)"
        )
    middle = owned.nonzero().double().mean(dim=0)
    top, left = min(
        places, key=lambda at: math.hypot(at[0] + (tall - 1) / 2 - middle[0], at[1] + (wide - 1) / 2 - middle[1])
    )
    keep, add = torch.ones(channels, height, width), torch.zeros(channels, height, width)
    add[:, top : top + tall, left : left + wide] = pattern
    if overwrites:
        keep[:, top : top + tall, left : left + wide] = 0
    return {
        party: Trigger(keep.flatten()[list(block)][None], add.flatten()[list(block)][None])
        for party, block in blocks.items()
    }


def subtriggers(
    blocks: Mapping[int, Block], sample_shape: tuple[int, ...], pattern: Tensor, *, overwrites: bool = False
) -> dict[int, Trigger]:
    """Return a trigger for each adversary: the whole pattern (h, w), at any place of its block, drawn for each sample.

    Raises ValueError where the pattern does not fit into a block.
    """
    channels, height, width = _image(sample_shape)
    tall, wide = pattern.shape
    found = {}
    for party, block in blocks.items():
        places = _places(_owned([block], sample_shape), (tall, wide))
        if not places:
            raise ValueError(
                f"a subtrigger of {tall} x {wide} is larger than the block of adversary {party}, "
                f"{len(block) // channels} pixels"
            )
        keep = torch.ones(len(places), channels, height, width)
        add = torch.zeros(len(places), channels, height, width)
        for number, (top, left) in enumerate(places):
            add[number, :, top : top + tall, left : left + wide] = pattern
            if overwrites:
                keep[number, :, top : top + tall, left : left + wide] = 0
        found[party] = Trigger(keep.flatten(1)[:, list(block)], add.flatten(1)[:, list(block)])
    return found


def check_area(attack: str, size: Size, count: int, area: int) -> None:
    """Raise ValueError unless `count` triggers of `size` have sides >= 1 and at most `area` pixels together."""
    if min(size) < 1:
        raise ValueError(f"{attack} needs a trigger of at least one pixel: size = {size}")
    if (pixels := size[0] * size[1] * count) > area:
        raise ValueError(
            f"{attack} has a trigger larger than its budget: {count} of {size[0]} x {size[1]} are {pixels} pixels, "
            f"area = {area}"
        )


def _image(sample_shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(sample_shape) == 3:
        return sample_shape[0], sample_shape[1], sample_shape[2]
    return 1, 1, math.prod(sample_shape)


def _owned(blocks: list[Block], sample_shape: tuple[int, ...]) -> Tensor:
    """Return which pixels (H, W) bool these blocks hold in all channels."""
    channels, height, width = _image(sample_shape)
    held = torch.zeros(channels * height * width, dtype=torch.bool)
    held[[column for block in blocks for column in block]] = True
    return held.view(channels, height, width).all(dim=0)


def _places(owned: Tensor, size: Size) -> list[Size]:
    """Return the first rows and columns of all windows of the size whose pixels are all owned."""
    if size[0] > owned.shape[0] or size[1] > owned.shape[1]:
        return []
    whole = owned.unfold(0, size[0], 1).unfold(1, size[1], 1).all(dim=3).all(dim=2)
    return [(int(top), int(left)) for top, left in whole.nonzero().tolist()]
