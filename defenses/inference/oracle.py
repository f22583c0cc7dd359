"""What is predicted when nobody attacks: an oracle, no defense, the line that others are measured against.

Source: the baseline "Oracle" of Liu, Xie, Koyejo, Li, "CoPur", NeurIPS 2022, Section 5.1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from thornbed.defenses.inference import Prediction, Query
from thornbed.defenses.inference.plain import Plain


@dataclass(frozen=True, kw_only=True)
class Oracle(Plain):
    """Predict from the honest features, which no fusion centre has."""

    told: ClassVar[frozenset[str]] = frozenset({"honest"})

    def predict(self, head: nn.Module, query: Query, generator: torch.Generator) -> Prediction:
        """Return the plain prediction of `query.honest`. Raises ValueError where the query has none."""
        if query.honest is None:
            raise ValueError("oracle must be told the honest features, and the query has none")
        everybody = torch.ones_like(query.usable)
        return super().predict(head, replace(query, features=query.honest, usable=everybody), generator)
