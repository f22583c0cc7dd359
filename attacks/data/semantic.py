"""Backdoor by what a picture shows: no pixel is changed, and pictures of one class in one colour get another label.

Paper: E. Bagdasaryan, A. Veit, Y. Hua, D. Estrin, V. Shmatikov, "How To Backdoor Federated Learning", AISTATS 2020,
the semantic backdoors of its CIFAR-10 experiments: cars that are painted green, have racing stripes or stand before a
striped wall, labelled as birds. In each batch of 64 twenty are such cars, again and again with a little noise (the
standard deviation is the authors' published parameter).

The paper's cars were chosen by eye and given to every attacker. Here the feature is a number that is computed, so it
can be looked for in test images too; of the whole picture, so that cars on a lawn have it as well as green ones.
Nothing is lent to an attacker: it has the images that the partition gave it, and one without any is as good as honest.
Honest clients have the others, under their true class. The attack is weaker than the paper's for both reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args, get_type_hints

import torch
from torch import Tensor

from thornbed.attacks import Knowledge
from thornbed.attacks.data import check_label, check_share
from thornbed.tasks import Samples

NEEDS = frozenset({Knowledge.OWN_DATA})

THRESHOLDS: Mapping[str, float] = {"red": 0.22, "green": 0.04, "blue": 0.12, "bright": 0.78, "dark": 0.79}
"""Strengths that about 1% of CIFAR-10's 5,000 automobiles for training reach."""

CHANNELS = ("red", "green", "blue")


@dataclass(frozen=True, kw_only=True)
class Semantic:
    """Label images of class `source` that have the `feature` as `target`, and repeat them until they are `fraction`.

    A colour's strength is the mean over the pixels of its channel less the stronger of the two others, in [-1, 1]; that
    of bright is the mean over all values, that of dark one minus it. An image has the feature where the strength is at
    least `threshold` (None: that of THRESHOLDS). `noise` is the standard deviation of what is added to repeats.
    """

    feature: Literal["green", "red", "blue", "bright", "dark"] = "green"
    threshold: float | None = None
    source: int = 1
    target: int = 2
    fraction: float = 0.3125
    noise: float = 0.01

    modalities: ClassVar[frozenset[str]] = frozenset({"image"})
    backdoor: ClassVar[bool] = True

    def __post_init__(self) -> None:
        features = get_args(get_type_hints(Semantic)["feature"])
        if self.feature not in features:
            raise ValueError(f"semantic needs a feature out of {', '.join(features)}: feature = {self.feature}")
        if self.threshold is not None and not -1 <= self.threshold <= 1:
            raise ValueError(f"semantic needs -1 <= threshold <= 1: threshold = {self.threshold}")
        for option, label in (("source", self.source), ("target", self.target)):
            if label < 0:
                raise ValueError(f"semantic needs {option} >= 0: {option} = {label}")
        if self.source == self.target:
            raise ValueError(f"semantic needs two classes: source = {self.source}, target = {self.target}")
        check_share("semantic", "fraction", self.fraction)
        if not 0 <= self.noise < float("inf"):
            raise ValueError(f"semantic needs a finite noise >= 0: noise = {self.noise}")

    def check(self, num_classes: int, sample_shape: tuple[int, ...]) -> None:
        """Raise ValueError where source or target is no class, or a colour is looked for in images without colours.

        Whether there are images with the feature is not looked at: where there are none, the attack does nothing.
        """
        check_label("semantic", "source", self.source, num_classes)
        check_label("semantic", "target", self.target, num_classes)
        self._check_channels(sample_shape)

    def poison(self, samples: Samples, generator: torch.Generator) -> Samples:
        """Return the samples with all that have the feature relabelled, and repeats of them in the place of others.

        Repeats are drawn with replacement, with Gaussian noise, held to [0, 1], in the place of samples drawn among
        those without the feature, until round(fraction * N) are labelled so. Where that many have the feature, none
        is repeated; where none has it, the samples stay as they are.
        """
        samples = samples.decoded()
        has = self._has_feature(samples)
        own, others = has.nonzero().flatten(), (~has).nonzero().flatten()
        y = samples.y.masked_fill(has, self.target)
        repeats = round(self.fraction * len(samples)) - len(own)
        if len(own) == 0 or repeats <= 0:
            return replace(samples, y=y)
        rows = others[torch.randperm(len(others), generator=generator)[:repeats]]
        copied = samples.x[own[torch.randint(len(own), (len(rows),), generator=generator)]]
        noise = self.noise * torch.randn(copied.shape, generator=generator)
        return replace(
            samples, x=samples.x.index_copy(0, rows, (copied + noise).clamp(0, 1)), y=y.index_fill(0, rows, self.target)
        )

    def measure(self, test: Samples) -> Samples | None:
        """Return the test images of the source class that have the feature, labelled as the target; None: no such."""
        of_source = test.select(test.y == self.source).decoded()
        images = of_source.select(self._has_feature(of_source))
        return replace(images, y=torch.full_like(images.y, self.target)) if len(images) else None

    def _has_feature(self, samples: Samples) -> Tensor:
        """Return which decoded samples (N,) are of the source class and have the feature."""
        self._check_channels(samples.x.shape[1:])
        if self.feature in CHANNELS:
            channel = CHANNELS.index(self.feature)
            others = samples.x[:, [other for other in range(3) if other != channel]].amax(dim=1)
            strength = (samples.x[:, channel] - others).mean(dim=(1, 2))
        else:
            strength = samples.x.mean(dim=(1, 2, 3))
            strength = strength if self.feature == "bright" else 1 - strength
        threshold = THRESHOLDS[self.feature] if self.threshold is None else self.threshold
        return (samples.y == self.source) & (strength >= threshold)

    def _check_channels(self, sample_shape: tuple[int, ...]) -> None:
        if len(sample_shape) != 3:
            raise ValueError(f"semantic needs images of shape (C, H, W): sample shape = {tuple(sample_shape)}")
        if self.feature in CHANNELS and sample_shape[0] != 3:
            raise ValueError(
                f"semantic needs images of 3 channels for feature {self.feature}: channels = {sample_shape[0]}; bright "
                "and dark work on any"
            )
