"""Triggers against masks drawn by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from thornbed.attacks.vertical.triggers import check_area, crossed, one_trigger, subtriggers
from thornbed.tasks.blocks import Block, split
from thornbed.tasks.blocks.contiguous import contiguous
from thornbed.tasks.blocks.grid import grid


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(triggers, blocks: dict[int, Block], shape: tuple[int, ...], x: float = 0.0) -> Tensor:
    """Put together what each adversary makes of an image of this value; NaN where nobody of them holds it."""
    whole = torch.full((torch.Size(shape).numel(),), torch.nan)
    for party, block in blocks.items():
        whole[list(block)] = triggers[party].stamped(torch.full((1, len(block)), x), source())[0]
    return whole.view(shape)


def test_the_pattern_has_its_cross() -> None:
    o = 7.0
    assert crossed((3, 5), o).tolist() == [[o, o, 0, o, o], [0, 0, 0, 0, 0], [o, o, 0, o, o]]
    assert crossed((4, 2), o).tolist() == [[o, o]] * 4
    assert crossed((1, 3), o).tolist() == [[o, o, o]]


def test_one_trigger_is_divided_as_a_mask_drawn_over_the_blocks_says() -> None:
    # 6 x 8 pixels in 2 x 4 blocks of 3 x 2; adversaries hold the four in the middle: all rows, columns 2 to 5
    shape, blocks = (2, 6, 8), grid((2, 6, 8), 8, rows=2)
    held = {party: blocks[party] for party in (1, 2, 5, 6)}
    found = one_trigger(held, shape, crossed((3, 3), 5.0))
    # The middle of what they hold lies between pixels; of the windows nearest to it the first is this one.
    drawn = ["..0000..", "..5050..", "..0000..", "..5050..", "..0000..", "..0000.."]
    expected = torch.tensor([[torch.nan if mark == "." else float(mark) for mark in row] for row in drawn])
    image = picture(found, held, shape)
    for channel in image:
        torch.testing.assert_close(channel, expected, equal_nan=True)
    # party 6 holds rows 3 to 5, columns 4 and 5: one row and one column of the window, all of it cross but one corner
    assert found[6].add.view(2, 3, 2)[0].tolist() == [[5.0, 0.0], [0.0, 0.0], [0.0, 0.0]]


def test_a_trigger_is_where_its_center_says_and_is_added_or_put_over_what_was_there() -> None:
    shape, blocks = (1, 4, 6), dict(enumerate(grid((1, 4, 6), 2, rows=1)))
    for overwrites, inside in ((False, 2.5), (True, 2.0)):
        found = one_trigger(blocks, shape, torch.full((2, 3), 2.0), center=(3, 4), overwrites=overwrites)
        expected = torch.full((1, 4, 6), 0.5)
        expected[0, 2:4, 3:6] = inside
        assert torch.equal(picture(found, blocks, shape, 0.5), expected)
    assert bool((found[0].keep == 1).all())
    assert not bool(found[0].add.any())  # this adversary has no portion of it
    with pytest.raises(ValueError, match=r"2 x 3 around \(0, 0\) does not lie in the adversaries' blocks alone"):
        one_trigger(blocks, shape, torch.ones(2, 3), center=(0, 0))


def test_a_trigger_never_lies_on_what_others_hold() -> None:
    shape, blocks = (1, 6, 6), grid((1, 6, 6), 9, rows=3)
    apart = {party: blocks[party] for party in (0, 4, 8)}
    with pytest.raises(ValueError, match=r"no place of 3 x 2 .*, which hold 12 of 6 x 6 pixels; choose a smaller"):
        one_trigger(apart, shape, torch.ones(3, 2))
    with pytest.raises(ValueError, match="no place of 7 x 2"):
        one_trigger(dict(enumerate(blocks)), shape, torch.ones(7, 2))
    assert sum(float(each.add.sum()) for each in one_trigger(apart, shape, torch.ones(2, 2)).values()) == 4


def test_subtriggers_are_whole_in_each_block_at_places_of_their_own() -> None:
    shape, blocks = (3, 8, 10), dict(enumerate(grid((3, 8, 10), 4, rows=2)))
    found = subtriggers(blocks, shape, torch.full((4, 2), 30.0))
    for party, trigger in found.items():
        assert trigger.keep.shape == (1 * 4, 3 * 4 * 5)  # 4 x 5 pixels hold 1 x 4 windows of 4 x 2
        stamped = trigger.stamped(torch.full((300, 60), 0.25), source(party)).view(300, 3, 4, 5)
        assert torch.equal(stamped[:, 0], stamped[:, 2])
        marked = stamped[:, 0] > 1
        assert marked.sum(dim=(1, 2)).tolist() == [8] * 300
        starts = marked[:, 0].double().argmax(dim=1)
        assert starts.unique().tolist() == [0, 1, 2, 3]
        for row, start in zip(marked, starts.tolist()):
            assert bool(row[:, start : start + 2].all())
        assert set(stamped.unique().tolist()) == {0.25, 30.25}
    with pytest.raises(ValueError, match="a subtrigger of 5 x 2 is larger than the block of adversary 0, 20 pixels"):
        subtriggers(blocks, shape, torch.ones(5, 2))


def test_columns_of_a_table_are_a_row_of_pixels() -> None:
    blocks = dict(enumerate(contiguous((9,), 3)))
    found = one_trigger({1: blocks[1], 2: blocks[2]}, (9,), torch.ones(1, 2))
    assert [found[party].add[0].tolist() for party in (1, 2)] == [[0, 0, 1], [1, 0, 0]]
    x = torch.arange(9.0)[None]
    assert found[1].stamped(split(x, list(blocks.values()))[1], source()).tolist() == [[3, 4, 6]]


def test_what_was_given_is_left_alone_and_a_block_need_not_be_a_rectangle() -> None:
    odd = {0: (0, 1, 2, 3, 5, 6), 1: (4, 7, 8)}
    found = one_trigger(odd, (1, 3, 3), torch.ones(2, 2), center=(1, 1))
    x = torch.zeros(2, 6)
    assert found[0].stamped(x, source())[0].tolist() == [1, 1, 0, 1, 0, 0]
    assert found[1].add[0].tolist() == [1, 0, 0]
    assert not bool(x.any())


def test_triggers_keep_to_their_area() -> None:
    check_area("it", (5, 7), 1, 35)
    with pytest.raises(ValueError, match="larger than its budget: 5 of 4 x 2 are 40 pixels, area = 39"):
        check_area("it", (4, 2), 5, 39)
    with pytest.raises(ValueError, match=r"at least one pixel: size = \(0, 2\)"):
        check_area("it", (0, 2), 1, 40)
