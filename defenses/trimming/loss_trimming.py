"""Leave out the points that the model of the last round fits worst.

Paper: M. Jagielski, A. Oprea, B. Biggio, C. Liu, C. Nita-Rotaru and B. Li, "Manipulating Machine Learning: Poisoning
Attacks and Countermeasures for Regression Learning", IEEE S&P 2018, Section IV (TRIM): train and keep the points of
smallest loss, in turns. Here the turns are the rounds of the federation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thornbed.defenses.reporting import acted
from thornbed.defenses.trimming import Floats, Loss, all_but_largest, checked


def loss_trimming(x: Floats, y: Floats, w: Floats, loss: Loss, *, share: float = 0.2) -> NDArray[np.bool_]:
    """Return a mask of the points to keep: ceil(share * n) of the largest loss at w go, whoever put them there.

    In a first round w is 0 and says nothing: begin after some. Of rare classes the hinge's losses are large, so much of
    them goes; the share has to be that of the attacker, which a defense does not know. Reports `trimmed_share`.
    Raises ValueError for a share that is not in [0, 1), an unknown loss, and shapes that do not fit.
    """
    checked("loss_trimming", x, y, w, share)
    if loss not in ("hinge", "squared"):
        raise ValueError(f"loss_trimming has loss out of hinge, squared: loss = {loss}")
    scores = np.square(x @ w - y) if loss == "squared" else 1 - y * (x @ w)
    kept = all_but_largest(scores, share)
    acted(trimmed_share=float(1 - kept.mean()))
    return kept
