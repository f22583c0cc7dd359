"""What counts as having acted: a share or a count above zero, or fewer updates selected than there were."""

from __future__ import annotations

import pytest

from thornbed.defenses.reporting import acted, did_something, listening


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({}, None),
        ({"norm": 3.0}, None),
        ({"masked_share": 0.0}, False),
        ({"masked_share": 0.1}, True),
        ({"masked_share": "much"}, None),
        ({"trimmed_per_tail": 0}, False),
        ({"trimmed_per_tail": 1}, True),
        ({"norm": 3.0, "masked_share": 0.0}, False),
        ({"masked_share": 0.0, "clipped_share": 0.5}, True),
        ({"selected": [0, 1, 2]}, False),
        ({"selected": [0, 2]}, True),
        ({"selected": 2}, None),
        ({"selected": [0, 1, 2], "masked_share": 0.5}, True),
    ],
)
def test_by_hand(figures, expected):
    assert did_something(figures, used=3) is expected


def test_an_inner_listener_hides_its_figures_and_nobody_has_to_listen():
    acted(norm=1.0)
    with listening() as outer:
        with listening() as inner:
            acted(norm=2.0)
        acted(share=3.0)
    assert (inner, outer) == ({"norm": 2.0}, {"share": 3.0})
