"""Targeted poisoning by wrong labels alone: every sample of one class is given the label of another.

Paper: V. Tolpegin, S. Truex, M. E. Gursoy, L. Liu, "Data Poisoning Attacks Against Federated Learning Systems",
ESORICS 2020, Section 2 (source class, target class). No sample is touched and nothing is hidden: the source class
itself is lost, so this is no backdoor. The defaults name the two classes that every task has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from thornbed.attacks import Knowledge
from thornbed.attacks.data import check_label
from thornbed.tasks import Samples

NEEDS = frozenset({Knowledge.OWN_DATA})


@dataclass(frozen=True, kw_only=True)
class LabelFlip:
    """Label all samples of class `source` as `target`; a client without samples of `source` is as good as honest."""

    source: int = 0
    target: int = 1

    modalities: ClassVar[frozenset[str]] = frozenset({"image", "table", "text"})
    backdoor: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for option, label in (("source", self.source), ("target", self.target)):
            if label < 0:
                raise ValueError(f"label_flip needs {option} >= 0: {option} = {label}")
        if self.source == self.target:
            raise ValueError(f"label_flip needs two classes: source = {self.source}, target = {self.target}")

    def check(self, num_classes: int, sample_shape: tuple[int, ...]) -> None:
        """Raise ValueError where source or target is no class of the task; any shape will do."""
        check_label("label_flip", "source", self.source, num_classes)
        check_label("label_flip", "target", self.target, num_classes)

    def poison(self, samples: Samples, generator: torch.Generator) -> Samples:
        """Return the samples with the source class relabelled; nothing is drawn from the generator."""
        return replace(samples.decoded(), y=torch.where(samples.y == self.source, self.target, samples.y))

    def measure(self, test: Samples) -> Samples | None:
        """Return the test samples of the source class labelled as the target, or None where there are none.

        Accuracy on them is not one minus the recall of the source class: mistakes for a third class count in neither.
        """
        flipped = test.select(test.y == self.source).decoded()
        if len(flipped) == 0:
            return None
        return replace(flipped, y=torch.full_like(flipped.y, self.target))
