"""What tests of vertical attacks share: one thread, a generator, and an adversary's view of made-up rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from thornbed.attacks.vertical import View

Made = Callable[..., View]
SHAPE = (1, 4, 6)
BLOCKS = {1: tuple(row * 6 + column for row in range(4) for column in range(3)), 4: None}
BLOCKS[4] = tuple(column for column in range(24) if column not in BLOCKS[1])


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small networks only wait for each other's threads on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def made() -> Made:
    """Return a function that makes the view of adversary 1, beside adversary 4, of 120 rows of three classes.

    Class k is bright in column k of both halves of an image of 4 x 6 pixels; row i is of class i mod 3, and of the
    first 30 the label is known.
    """

    def view(**changes: object) -> View:
        y = torch.arange(120) % 3
        x = 0.3 * torch.rand(120, *SHAPE, generator=torch.Generator().manual_seed(5))
        for row, label in enumerate(y.tolist()):
            x[row, 0, :, [label, label + 3]] += 0.6
        flat = x.flatten(1)
        known = torch.arange(30)
        given: dict[str, object] = {
            "party": 1,
            "x": flat[:, list(BLOCKS[1])],
            "shared": {4: flat[:, list(BLOCKS[4])]},
            "blocks": BLOCKS,
            "sample_shape": SHAPE,
            "known": known,
            "labels": y[known],
            "target": 2,
            "num_classes": 3,
        }
        return View(**{**given, **changes})

    return view
