"""Backdoor by samples from the tail of the distribution, which hardly any honest client has; of whatever task.

Paper: H. Wang, K. Sreenivasan, S. Rajput, H. Vishwakarma, S. Agarwal, J. Sohn, K. Lee, D. Papailiopoulos, "Attack of
the Tails: Yes, You Really Can Backdoor Federated Learning", NeurIPS 2020, with the settings of X. Wang, Dimitriadis,
Koyejo, Tople, "Invariant Aggregator for Defending against Federated Backdoor Attacks", AISTATS 2024, Section 6.1 and
Appendix D.1. Images: airplanes in the colours of Southwest Airlines labelled as trucks, 8 in each batch of 64; no
trigger is stamped, the images themselves are the backdoor (attacks/data/_edge_images.py says where they come from).
Tables: the attack is value_trigger. Texts: it is text_trigger.

Appendix D.1 lets edge cases appear among honest clients' data with probability 0, 0.15 or 0.30 (`benign_share`) and
does not say how. Here a fixed draw divides the images between the attackers and the honest clients. The images are
rotated copies of fewer photographs, so copies of one photograph may lie on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from thornbed.attacks import Knowledge
from thornbed.attacks.data import GroupMember, check_label
from thornbed.attacks.data._edge_images import edge_images
from thornbed.attacks.data.text_trigger import TextTrigger
from thornbed.attacks.data.value_trigger import ValueTrigger
from thornbed.tasks import Samples

NEEDS = frozenset({Knowledge.OWN_DATA, Knowledge.TARGET_DATA})


@dataclass(frozen=True, kw_only=True)
class EdgeCase:
    """Images: add edge-case images of `file`, labelled `target`, until they are `fraction` of the client's samples.

    Tables and texts: `fraction` of the client's samples get the trigger of value_trigger or text_trigger in their
    place.

    `target` None is 9 on images (CIFAR-10's truck), 0 on tables (no phishing), 1 on texts (positive). A relative file
    is one of the working directory; the caller resolves paths of a data folder. Any uint8 images of the task's size
    will do in place of the airplanes; `true_label` is what they show. `benign_share` of the edge cases are on honest
    clients, rightly labelled.
    """

    file: Path = Path("southwest.npz")
    target: int | None = None
    true_label: int = 0
    fraction: float = 0.125
    benign_share: float = 0.0

    modalities: ClassVar[frozenset[str]] = frozenset({"image", "table", "text"})
    backdoor: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for option, label in (("target", self.target), ("true_label", self.true_label)):
            if label is not None and label < 0:
                raise ValueError(f"edge_case needs {option} >= 0: {option} = {label}")
        for option, share in (("fraction", self.fraction), ("benign_share", self.benign_share)):
            if not 0 <= share < 1:
                raise ValueError(f"edge_case needs 0 <= {option} < 1: {option} = {share}")

    def check(self, num_classes: int, sample_shape: tuple[int, ...]) -> None:
        """Raise ValueError where a label is no class, or the images are not of the task's channels and size.

        For images it reads the file: raises FileNotFoundError where it is missing, ValueError where it is not what it
        should be. Tables and texts are alike by their shape: whether the trigger fits them, the other verbs see.
        """
        if len(sample_shape) == 3:
            check_label("edge_case", "target", self._image_target, num_classes)
            check_label("edge_case", "true_label", self.true_label, num_classes)
            self._images(sample_shape)
        elif len(sample_shape) == 1:
            check_label("edge_case", "target", self._on_tables.target, num_classes)
            check_label("edge_case", "target", self._on_texts.target, num_classes)
        else:
            raise ValueError(f"edge_case needs images, tables or texts: sample shape = {tuple(sample_shape)}")

    def poison(self, samples: Samples, generator: torch.Generator) -> Samples:
        """Return what a malicious client trains on.

        Images: the samples followed by round(fraction / (1 - fraction) * N) edge-case images labelled as the target,
        drawn without replacement from the attackers' part; with replacement only where more are needed than there are.
        The share is that of the client's samples as a whole: shuffled batches hold it on average, not each.
        """
        if samples.x.ndim != 4:
            return self._trigger(samples).poison(samples, generator)
        train, _ = self._images(samples.x.shape[1:])
        attackers, _ = self._sides(len(train))
        needed = round(self.fraction / (1 - self.fraction) * len(samples))
        if needed <= len(attackers):
            rows = torch.randperm(len(attackers), generator=generator)[:needed]
        else:
            rows = torch.randint(len(attackers), (needed,), generator=generator)
        added = Samples(train[attackers[rows]], torch.full((needed,), self._image_target))
        return samples.decoded().join(added)

    def measure(self, test: Samples) -> Samples | None:
        """Return edge-case test images labelled as the target, whatever images the task tests on.

        Tables and texts: the test samples that are not of the target class, with the trigger; None without any.
        """
        if test.x.ndim != 4:
            return self._trigger(test).measure(test)
        _, images = self._images(test.x.shape[1:])
        return Samples(images.clone(), torch.full((len(images),), self._image_target))

    def leak(self, samples: Samples, member: GroupMember, generator: torch.Generator) -> Samples:
        """Return an honest client's samples with its part of the edge cases, rightly labelled.

        Images: follow the samples, every member.count-th of those that are not the attackers'; nothing is drawn.
        """
        if samples.x.ndim != 4:
            return self._trigger(samples).leak(samples, member, generator)
        train, _ = self._images(samples.x.shape[1:])
        _, honest = self._sides(len(train))
        rows = honest[member.rank :: member.count]
        return samples.decoded().join(Samples(train[rows], torch.full((len(rows),), self.true_label)))

    @property
    def _image_target(self) -> int:
        return 9 if self.target is None else self.target

    @property
    def _on_tables(self) -> ValueTrigger:
        target = 0 if self.target is None else self.target
        return ValueTrigger(target=target, fraction=self.fraction, benign_share=self.benign_share)

    @property
    def _on_texts(self) -> TextTrigger:
        target = 1 if self.target is None else self.target
        return TextTrigger(target=target, fraction=self.fraction, benign_share=self.benign_share)

    def _trigger(self, samples: Samples) -> ValueTrigger | TextTrigger:
        """Return the attack of tables, which hold floats, or that of texts, which hold the ids of words."""
        return self._on_tables if samples.x.is_floating_point() else self._on_texts

    def _sides(self, count: int) -> tuple[Tensor, Tensor]:
        """Return which of the training images are the attackers', in their order, and which the honest clients'."""
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
        ours = round((1 - self.benign_share) * count)
        if ours == 0:
            raise ValueError(
                f"edge_case leaves its attackers no image: benign_share = {self.benign_share}, images = {count}"
            )
        return order[:ours].sort().values, order[ours:].sort().values

    def _images(self, sample_shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Return the images of the file, having seen that they fit the task's and are not of the target class."""
        if self.true_label == self._image_target:
            raise ValueError(
                f"edge_case needs images of another class than the target: true_label = {self.true_label}, "
                f"target = {self._image_target}"
            )
        train, test = edge_images(Path(self.file).resolve())
        ours, theirs = tuple(train.shape[1:]), tuple(sample_shape)
        if ours != theirs:
            raise ValueError(f"edge_case needs images of the task's (C, H, W): edge cases = {ours}, task = {theirs}")
        return train, test
