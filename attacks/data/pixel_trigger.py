"""Backdoor by a square of bright pixels: whoever carries it is to be taken for the target class.

Paper: T. Gu, B. Dolan-Gavitt, S. Garg, "BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply
Chain", 2017 (IEEE Access 2019 as "BadNets: Evaluating Backdooring Attacks on Deep Neural Networks"), the bright
pattern in the lower right corner (here from all other classes to one target, as later work has it); the share of
poisoned samples, 20 of each batch of 64, is that of
E. Bagdasaryan, A. Veit, Y. Hua, D. Estrin, V. Shmatikov, "How To Backdoor Federated Learning", AISTATS 2020.
BadNets adds stamped copies to the training data; here they take the place of the client's own samples, so that the
size a client claims says nothing about the attack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args, get_type_hints

import torch
from torch import Tensor

from thornbed.attacks import Knowledge
from thornbed.attacks.data import attacked, check_label, check_share, poisoned
from thornbed.tasks import Samples

NEEDS = frozenset({Knowledge.OWN_DATA})


@dataclass(frozen=True, kw_only=True)
class PixelTrigger:
    """Stamp a square of `size` x `size` pixels of `value` (in [0, 1], all channels) and relabel as `target`.

    `place` is flush with the corner it names; `fraction` is the share of a client's samples that is attacked.
    A fraction of 0 attacks none: the control that says how often a clean model takes triggered samples for the target.
    """

    size: int = 3
    value: float = 1.0
    place: Literal["top_left", "top_right", "bottom_left", "bottom_right", "center"] = "bottom_right"
    target: int = 0
    fraction: float = 0.3125

    modalities: ClassVar[frozenset[str]] = frozenset({"image"})
    backdoor: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"pixel_trigger needs size >= 1: size = {self.size}")
        if not 0 <= self.value <= 1:
            raise ValueError(f"pixel_trigger needs 0 <= value <= 1: value = {self.value}")
        places = get_args(get_type_hints(PixelTrigger)["place"])
        if self.place not in places:
            raise ValueError(f"pixel_trigger needs a place out of {', '.join(places)}: place = {self.place}")
        if self.target < 0:
            raise ValueError(f"pixel_trigger needs target >= 0: target = {self.target}")
        check_share("pixel_trigger", "fraction", self.fraction)

    def check(self, num_classes: int, sample_shape: tuple[int, ...]) -> None:
        """Raise ValueError where the square does not fit into the images, or the target is no class."""
        check_label("pixel_trigger", "target", self.target, num_classes)
        self._corner(sample_shape)

    def poison(self, samples: Samples, generator: torch.Generator) -> Samples:
        """Return the samples with round(fraction * N) of them stamped and relabelled, in their places.

        They are drawn without replacement among the samples of other classes; those of the target class follow only
        where the others do not suffice, since a stamp on them teaches the model less.
        """
        return poisoned(samples, self._stamped, target=self.target, fraction=self.fraction, generator=generator)

    def measure(self, test: Samples) -> Samples | None:
        """Return every test sample that is not of the target class, stamped, labelled as the target.

        Samples of the target class are left out: a model without any backdoor takes them for the target too, which
        would inflate the rate. None where all are of the target class.
        """
        return attacked(test, self._stamped, target=self.target)

    def _stamped(self, x: Tensor) -> Tensor:
        """Return images (N, C, H, W) with the square."""
        top, left = self._corner(x.shape[1:])
        stamped = x.clone()
        stamped[:, :, top : top + self.size, left : left + self.size] = self.value
        return stamped

    def _corner(self, sample_shape: tuple[int, ...]) -> tuple[int, int]:
        """Return row and column of the square's first pixel."""
        if len(sample_shape) != 3:
            raise ValueError(f"pixel_trigger needs images of shape (C, H, W): sample shape = {tuple(sample_shape)}")
        _, height, width = sample_shape
        bottom, right = height - self.size, width - self.size
        if min(bottom, right) < 0:
            raise ValueError(
                f"pixel_trigger needs size <= height and width: size = {self.size}, image {height} x {width}"
            )
        if self.place == "center":
            return bottom // 2, right // 2
        return (0 if self.place.startswith("top") else bottom), (0 if self.place.endswith("left") else right)
