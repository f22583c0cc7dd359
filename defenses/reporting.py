"""What a defense did: the figures that a rule reports while it runs, without a second return value.

A rule calls `acted(masked_share=0.4)`; whoever wants to know runs it inside `with listening() as figures:`.
With nobody listening the call does nothing, so a rule stays a pure function of its tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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


def did_something(figures: Mapping[str, object], used: int) -> bool | None:
    """Tell from the figures of a round with `used` updates whether the defense changed anything; None: they do not say.

    It did where a share (NAME_share) or a count of what was cut (trimmed_per_tail) is above zero, or where it selected
    fewer updates than there were.
    """
    signs = [value > 0 for name, value in figures.items() if _counts(name) and isinstance(value, int | float)]
    selected = figures.get("selected")
    if isinstance(selected, list):
        signs.append(len(selected) < used)
    return any(signs) if signs else None


def _counts(name: str) -> bool:
    return name.endswith("_share") or name == "trimmed_per_tail"
