"""How long a sweep will take: what schemes say of its cells before it starts, the cells that are done afterwards."""

from __future__ import annotations

from collections.abc import Iterable

from thornbed.flower_apps.schemes.scheme import built, scheme_of
from thornbed.flower_apps.settings import Resolved

# Start and end of a run, and what Flower's virtual client engine costs beside the training (docs/benchmarks.md).
SECONDS_A_RUN, SECONDS_A_SIMULATION = 0.5, 20.0


class Estimate:
    """Seconds that cells will take; the ones that are done correct what was measured beforehand."""

    def __init__(self, seconds: Iterable[float], jobs: int) -> None:
        self._left = list(seconds)
        self._jobs = jobs
        self._expected = self._took = 0.0

    def done(self, expected: float, took: float) -> None:
        """Learn from a cell that was expected to take so long, and took so long."""
        self._left.remove(expected)
        self._expected, self._took = self._expected + expected, self._took + took

    def skip(self, expected: float) -> None:
        """Leave out a cell that broke."""
        self._left.remove(expected)

    @property
    def seconds_left(self) -> float:
        """Seconds until all cells are done, those that run now counted as if they had not begun."""
        scale = self._took / self._expected if self._expected else 1.0
        return scale * sum(self._left) / min(self._jobs, max(len(self._left), 1))


def seconds_of(settings: Resolved) -> float:
    """Return about how many seconds a run takes: what its scheme says of its rounds, and what its engine adds."""
    engine = SECONDS_A_SIMULATION if settings.engine == "simulation" else 0.0
    return SECONDS_A_RUN + engine + scheme_of(settings).seconds(built(settings))
