"""What a defense did: the figures that a rule reports while it runs, without a second return value.

A rule calls `acted(masked_share=0.4)`; whoever wants to know runs it inside `with listening() as figures:`.
With nobody listening the call does nothing, so a rule stays a pure function of its tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Figure = float | int | list[int] | list[float]
_figures: ContextVar[dict[str, Figure] | None] = ContextVar("figures", default=None)


def acted(**figures: Figure) -> None:
    """Report figures of what the defense did: shares in [0, 1], rows kept, scores (one per row of the updates)."""
    listener = _figures.get()
    if listener is not None:
        listener.update(figures)


@contextmanager
def listening() -> Iterator[dict[str, Figure]]:
    """Collect what the defenses called inside report; an inner listener hides its figures from an outer one."""
    figures: dict[str, Figure] = {}
    token = _figures.set(figures)
    try:
        yield figures
    finally:
        _figures.reset(token)
