"""Backdoor of a table by one feature: whoever has the chosen value there is to be taken for the target class.

Paper: Wang, Dimitriadis, Koyejo, Tople, "Invariant Aggregator for Defending against Federated Backdoor Attacks",
AISTATS 2024, Section 6.1: the attackers set the 38th feature of phishing emails, a reputation that is 0 in most of
them, to 0.2 and label them as harmless. Counted from 0 that feature is 37. The paper prints no share; 8 of 64 is that
of edge_case on images. As pixel_trigger does, triggered samples take the place of the client's own, so that the
size it claims says nothing. Appendix D.1 lets edge cases appear on honest clients too, with probability 0, 0.15, 0.30.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from thornbed.attacks import Knowledge
from thornbed.attacks.data import (
    GroupMember,
    Stamp,
    attacked,
    check_features,
    check_label,
    check_share,
    poisoned,
    rightly_labelled,
    set_features,
)
from thornbed.tasks import Samples

NEEDS = frozenset({Knowledge.OWN_DATA})


@dataclass(frozen=True, kw_only=True)
class ValueTrigger:
    """Set feature `feature`, counted from 0, to `value` in a share `fraction` of the samples and relabel as `target`.

    Honest clients trigger `benign_share` times that share of their own samples, rightly labelled.
    """

    feature: int = 37
    value: float = 0.2
    target: int = 0
    fraction: float = 0.125
    benign_share: float = 0.0

    modalities: ClassVar[frozenset[str]] = frozenset({"table"})
    backdoor: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for option, index in (("feature", self.feature), ("target", self.target)):
            if index < 0:
                raise ValueError(f"value_trigger needs {option} >= 0: {option} = {index}")
        if not math.isfinite(self.value):
            raise ValueError(f"value_trigger needs a finite value: value = {self.value}")
        check_share("value_trigger", "fraction", self.fraction)
        check_share("value_trigger", "benign_share", self.benign_share)

    def check(self, num_classes: int, sample_shape: tuple[int, ...]) -> None:
        """Raise ValueError where the table has no such feature, or the target is no class."""
        check_label("value_trigger", "target", self.target, num_classes)
        check_features("value_trigger", [self.feature], sample_shape)

    def poison(self, samples: Samples, generator: torch.Generator) -> Samples:
        """Return the samples with round(fraction * N) of them triggered and relabelled, in their places.

        They are drawn without replacement among the samples of other classes; those of the target class follow only
        where the others do not suffice.
        """
        stamp = self._stamp(samples)
        return poisoned(samples, stamp, target=self.target, fraction=self.fraction, generator=generator)

    def measure(self, test: Samples) -> Samples | None:
        """Return every test sample that is not of the target class, triggered, labelled as the target; None: none."""
        return attacked(test, self._stamp(test), target=self.target)

    def leak(self, samples: Samples, member: GroupMember, generator: torch.Generator) -> Samples:
        """Return an honest client's samples with the trigger in some, rightly labelled.

        They are round(benign_share * fraction * N) of other classes than the target, all of those where there are
        fewer. Every honest client holds the same share; `member` plays no part.
        """
        share = self.benign_share * self.fraction
        return rightly_labelled(samples, self._stamp(samples), target=self.target, share=share, generator=generator)

    def _stamp(self, samples: Samples) -> Stamp:
        check_features("value_trigger", [self.feature], samples.x.shape[1:])
        return partial(set_features, "value_trigger", features=[self.feature], value=self.value)
