"""Backdoor whose trigger is divided: each attacker stamps one part, and whoever carries all parts is the target class.

Paper: C. Xie, K. Huang, P.-Y. Chen, B. Li, "DBA: Distributed Backdoor Attacks against Federated Learning", ICLR 2020,
Section 3: one global trigger is cut into local ones, a local one per attacker; the test uses the global one. The
defaults are those of the authors' published parameters for CIFAR-10: four white bars of 1 x 6 pixels in two columns,
gap 3, location 0, 5 samples of each batch of 64. The paper's target there is the bird (2); ours is class 0, which every
task has and which is the harmless class of phishing emails. In tables a part is one of several features, set to one
value; the paper does likewise with loans, with two features and two values a part. Stamped samples take the place of
the client's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from thornbed.attacks import Knowledge
from thornbed.attacks.data import (
    GroupMember,
    Stamp,
    attacked,
    check_features,
    check_label,
    check_share,
    poisoned,
    set_features,
)
from thornbed.tasks import Samples

NEEDS = frozenset({Knowledge.OWN_DATA})


@dataclass(frozen=True, kw_only=True)
class Dba:
    """Stamp part number `part` of a trigger of `num_parts` and relabel as `target`; measure with the whole trigger.

    On images a part is a bar of 1 x `size` pixels of `value` (in [0, 1], all channels); bars stand in two columns,
    `gap` pixels apart both ways, the first one `location` pixels from the top and from the left. In tables part i is
    every `num_parts`-th of `features`, counted from 0, from the i-th on, set to `feature_value`.

    `part` None leaves it to `for_member`: attacker r stamps part r mod `num_parts`. Where nobody numbers the attackers,
    each names its own, `dba(part=2)`: poison without a part stamps the whole trigger, which is the centralised attack
    that the paper compares with.
    """

    num_parts: int = 4
    part: int | None = None
    size: int = 6
    gap: int = 3
    location: int = 0
    value: float = 1.0
    features: tuple[int, ...] = (37, 38, 39, 40)
    feature_value: float = 0.2
    target: int = 0
    fraction: float = 0.078125

    modalities: ClassVar[frozenset[str]] = frozenset({"image", "table"})
    backdoor: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for option, least in {"num_parts": 1, "size": 1, "gap": 0, "location": 0, "target": 0}.items():
            if getattr(self, option) < least:
                raise ValueError(f"dba needs {option} >= {least}: {option} = {getattr(self, option)}")
        if self.part is not None and not 0 <= self.part < self.num_parts:
            raise ValueError(f"dba needs 0 <= part < num_parts: part = {self.part}, num_parts = {self.num_parts}")
        if not self.features or min(self.features) < 0 or len(set(self.features)) < len(self.features):
            raise ValueError(f"dba needs different features >= 0, at least one: features = {self.features}")
        if not 0 <= self.value <= 1:
            raise ValueError(f"dba needs 0 <= value <= 1: value = {self.value}")
        if not math.isfinite(self.feature_value):
            raise ValueError(f"dba needs a finite feature_value: feature_value = {self.feature_value}")
        check_share("dba", "fraction", self.fraction)

    def for_member(self, member: GroupMember) -> Dba:
        """Return the attack with the part of this attacker; the same where the part is named."""
        return self if self.part is not None else replace(self, part=member.rank % self.num_parts)

    def check_members(self, count: int) -> None:
        """Raise ValueError where some part would be nobody's, and still be in what measures; a named part is fine."""
        if self.part is None and count < self.num_parts:
            raise ValueError(
                f"dba needs an attacker for every part: num_parts = {self.num_parts}, attackers = {count}; name the "
                "part that all of them stamp with part=0 where that is what you mean"
            )

    def check(self, num_classes: int, sample_shape: tuple[int, ...]) -> None:
        """Raise ValueError where the whole trigger does not fit the images or the table, or the target is no class."""
        check_label("dba", "target", self.target, num_classes)
        self._stamp(sample_shape, None)

    def poison(self, samples: Samples, generator: torch.Generator) -> Samples:
        """Return the samples with round(fraction * N) of them stamped and relabelled, in their places.

        They are drawn without replacement among the samples of other classes; those of the target class follow only
        where the others do not suffice.
        """
        stamp = self._stamp(samples.x.shape[1:], self.part)
        return poisoned(samples, stamp, target=self.target, fraction=self.fraction, generator=generator)

    def measure(self, test: Samples) -> Samples | None:
        """Return every test sample that is not of the target class with the whole trigger, labelled as the target.

        None where all are of the target class.
        """
        return attacked(test, self._stamp(test.x.shape[1:], None), target=self.target)

    def _stamp(self, sample_shape: tuple[int, ...], part: int | None) -> Stamp:
        """Return what stamps one part, or the whole trigger (None), having seen that the whole one fits."""
        parts = range(self.num_parts) if part is None else [part]
        if len(sample_shape) == 1:
            if self.num_parts > len(self.features):
                raise ValueError(
                    f"dba needs num_parts <= number of features: num_parts = {self.num_parts}, features = "
                    f"{self.features}"
                )
            check_features("dba", self.features, sample_shape)
            chosen = [feature for number in parts for feature in self.features[number :: self.num_parts]]
            return partial(set_features, "dba", features=chosen, value=self.feature_value)
        if len(sample_shape) != 3:
            raise ValueError(f"dba needs images (C, H, W) or rows of a table: sample shape = {tuple(sample_shape)}")
        corners = [self._corner(number) for number in range(self.num_parts)]
        height, width = max(top for top, _ in corners) + 1, max(left for _, left in corners) + self.size
        if height > sample_shape[1] or width > sample_shape[2]:
            raise ValueError(
                f"dba needs images that hold its trigger: trigger {height} x {width} pixels, image {sample_shape[1]} x "
                f"{sample_shape[2]}; choose a smaller size, gap or location"
            )
        return partial(self._with_bars, corners=[corners[number] for number in parts])

    def _corner(self, number: int) -> tuple[int, int]:
        """Return row and column of the first pixel of a bar."""
        down, right = divmod(number, 2)
        return self.location + down * (1 + self.gap), self.location + right * (self.size + self.gap)

    def _with_bars(self, x: Tensor, corners: list[tuple[int, int]]) -> Tensor:
        stamped = x.clone()
        for top, left in corners:
            stamped[:, :, top, left : left + self.size] = self.value
        return stamped
