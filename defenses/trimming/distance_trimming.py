"""Leave out the points that lie farthest from the middle of the node's others.

Paper: J. Steinhardt, P. W. Koh and P. Liang, "Certified Defenses for Data Poisoning Attacks", NeurIPS 2017, Section 2
(the sphere defense), with the median in place of the mean, which the injected points would move.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thornbed.defenses.reporting import acted
from thornbed.defenses.trimming import Floats, Loss, all_but_largest, checked


def distance_trimming(
    x: Floats, y: Floats, w: Floats, loss: Loss, *, share: float = 0.2, by_class: bool = False
) -> NDArray[np.bool_]:
    """Return a mask of the points to keep: ceil(share * n) go, those farthest from the median of each feature.

    Each feature is measured in its median absolute deviation; one that does not move in half of the points is not
    counted. With `by_class` every label has its own middle and loses its own share: for a classification, whose rare
    class lies apart. w and loss are ignored: distances know no model. It stops points that are far, not ones that lie
    among the others with a wrong label. Reports `trimmed_share`.
    Raises ValueError for a share that is not in [0, 1), and shapes that do not fit.
    """
    checked("distance_trimming", x, y, w, share)
    groups = y if by_class else np.zeros(len(y))
    scores = np.zeros(len(y))
    for label in np.unique(groups):
        rows = groups == label
        apart = np.abs(x[rows] - np.median(x[rows], axis=0))
        spread = np.median(apart, axis=0)
        moves = spread > 0
        scores[rows] = np.linalg.norm(apart[:, moves] / spread[moves], axis=1)
    kept = all_but_largest(scores, share, groups)
    acted(trimmed_share=float(1 - kept.mean()))
    return kept
