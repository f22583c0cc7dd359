"""Who holds which columns: grids against a picture, runs by hand, and blocks that are none."""

from __future__ import annotations

import pytest
import torch

from thornbed.tasks.blocks import Patch, block_shapes, check_blocks, patch_of, split
from thornbed.tasks.blocks.contiguous import contiguous
from thornbed.tasks.blocks.grid import grid
from thornbed.tasks.digits import digits


def test_a_grid_is_cut_as_one_reads() -> None:
    picture = torch.tensor([[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]])
    blocks = grid((1, 3, 5), 6, rows=2)
    for number, part in enumerate(split(picture[None], blocks)):
        assert part.unique().tolist() == [number]


def test_all_channels_of_a_pixel_belong_to_one_agent() -> None:
    image = torch.arange(4).view(1, 2, 2).expand(3, 2, 2)[None]
    assert [part.tolist() for part in split(image, grid((3, 2, 2), 4, rows=2))] == [[[i] * 3] for i in range(4)]


def test_ten_agents_hold_the_digits() -> None:
    task = digits(None)
    blocks = grid(task.sample_shape, 10, rows=2)
    parts = split(task.samples("test").x, blocks)
    assert [part.shape[1] for part in parts] == [8, 8, 8, 4, 4] * 2
    torch.testing.assert_close(
        sum(part.sum(dim=1) for part in parts), task.samples("test").x.flatten(1).sum(dim=1), rtol=1e-5, atol=1e-4
    )


def test_runs_of_columns() -> None:
    assert contiguous((7,), 3) == ((0, 1, 2), (3, 4), (5, 6))
    assert contiguous((1, 2, 3), 2, sizes=(1, 5)) == ((0,), (1, 2, 3, 4, 5))


def test_rectangles_are_found_in_blocks() -> None:
    blocks = grid((3, 7, 5), 4, rows=2)
    assert [patch_of(block, (3, 7, 5)) for block in blocks] == [
        Patch(0, 0, 4, 3),
        Patch(0, 3, 4, 2),
        Patch(4, 0, 3, 3),
        Patch(4, 3, 3, 2),
    ]
    assert block_shapes(blocks, (3, 7, 5)) == [(3, 4, 3), (3, 4, 2), (3, 3, 3), (3, 3, 2)]
    image = torch.arange(105.0).view(1, 3, 7, 5)
    assert torch.equal(split(image, blocks)[3].view(3, 3, 2), image[0, :, 4:, 3:])
    assert patch_of((0, 1, 5, 7), (1, 3, 5)) is None
    assert patch_of((0, 1, 2, 3, 4, 5), (1, 2, 5)) is None
    assert patch_of((1, 0), (1, 2, 5)) is None
    assert patch_of((0, 1), (3, 2, 5)) is None
    assert patch_of((2, 3, 4), (9,)) == Patch(0, 2, 1, 3)
    assert block_shapes([(0, 1), (2, 4), (3,)], (5,)) == [(2,), (2,), (1,)]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: grid((7,), 2), r"grid cuts images \(C, H, W\): a sample has shape \(7,\)"),
        (lambda: grid((1, 8, 8), 5), "rows that divide num_agents: num_agents = 5, rows = 2"),
        (lambda: grid((1, 8, 8), 0), "num_agents = 0, rows = 2"),
        (lambda: grid((1, 2, 2), 6), "cannot cut 2 x 2 pixels into 2 x 3 patches"),
        (lambda: contiguous((3,), 4), "1 to 3 agents for 3 columns: num_agents = 4"),
        (lambda: contiguous((3,), 2, sizes=(1, 1)), r"2 positive sizes that add up to 3: sizes = \(1, 1\), .* to 2"),
        (lambda: contiguous((3,), 2, sizes=(3, 0)), "positive sizes"),
        (lambda: contiguous((3,), 2, sizes=(3,)), "2 positive sizes"),
        (lambda: check_blocks([(0, 1), (1,)], (2,)), "blocks overlap: column 1 is in 2 of them"),
        (lambda: check_blocks([(0,), (2,)], (4,)), "blocks leave out 2 of 4 columns, the first is 1"),
        (lambda: check_blocks([(0,), (4,)], (4,)), r"blocks name column 4, and samples \(4,\) have 4"),
        (lambda: check_blocks([(0,), ()], (1,)), "every party needs a column: party 1 of 2 has none"),
    ],
)
def test_what_is_no_division_is_refused(call, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()
