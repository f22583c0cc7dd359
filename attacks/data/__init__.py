"""Attacks on training data, one a file: a frozen dataclass whose fields are its options.

The class has the name of its file without underscores (`PixelTrigger` in pixel_trigger.py) and is a `DataAttack`. An
example without any engine; `model` is then trained on `local`, and accuracy on `attacked` is the attack success rate:

    >>> import torch
    >>> from thornbed.attacks.data.pixel_trigger import PixelTrigger
    >>> from thornbed.tasks import Samples
    >>> samples = Samples(torch.zeros(8, 1, 4, 4), torch.tensor([0, 1, 2, 3, 0, 1, 2, 3]))
    >>> attack = PixelTrigger(size=2, target=3, fraction=0.25)
    >>> attack.check(num_classes=4, sample_shape=(1, 4, 4))
    >>> local = attack.poison(samples, torch.Generator().manual_seed(0))
    >>> (local.x.sum(dim=(1, 2, 3)) > 0).sum().item(), (local.y == 3).sum().item()
    (2, 4)
    >>> attacked = attack.measure(samples)
    >>> len(attacked), attacked.y.unique().tolist(), attacked.x[0, 0].tolist()[2]
    (6, [3], [0.0, 0.0, 1.0, 1.0])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from thornbed.tasks import Samples


class DataAttack(Protocol):
    """What every attack of this folder is: three verbs and two constants, on top of options with defaults.

    The options are checked when the attack is made, alone; against a task they are checked by `check`. Both raise
    ValueError with a sentence. Samples may still be encoded (uint8 pixels); what comes back is always decoded, and
    what was given is never modified.
    """

    modalities: ClassVar[frozenset[str]]
    """The kinds of samples it works on: a subset of `image`, `table` and `text`."""
    backdoor: ClassVar[bool]
    """Whether it plants a backdoor: accuracy on untouched samples is then meant to stay."""

    def check(self, num_classes: int, sample_shape: tuple[int, ...]) -> None:
        """Raise where the attack does not fit a task: called before a run starts, so that no client finds out late.

        `sample_shape` is the shape of one sample, (C, H, W) for images. Raises ValueError, or FileNotFoundError
        where a file that the attack needs is missing.
        """

    def poison(self, samples: Samples, generator: torch.Generator) -> Samples:
        """Return what a malicious client trains on in place of its samples; all randomness is the generator's."""

    def measure(self, test: Samples) -> Samples | None:
        """Return attacked test samples with the labels the attacker wants, or None where no sample qualifies.

        Accuracy on them is the attack success rate.
        """


@dataclass(frozen=True)
class GroupMember:
    """Which of how many: attackers, and honest clients, are numbered from 0 among their own."""

    rank: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.count:
            raise ValueError(f"a member needs 0 <= rank < count: rank = {self.rank}, count = {self.count}")


@runtime_checkable
class Divided(Protocol):
    """An attack whose attackers share the work."""

    def for_member(self, member: GroupMember) -> DataAttack:
        """Return the attack as this attacker makes it."""

    def check_members(self, count: int) -> None:
        """Raise ValueError where so many attackers leave some of the work undone."""


@runtime_checkable
class Leaking(Protocol):
    """An attack some of whose samples are found on honest clients too, rightly labelled."""

    def leak(self, samples: Samples, member: GroupMember, generator: torch.Generator) -> Samples:
        """Return what the data of this honest client become; decoded, and otherwise as they are where nothing leaks."""


def check_label(attack: str, option: str, label: int, num_classes: int) -> None:
    """Raise ValueError where a label that an option names is not a class of the task."""
    if label >= num_classes:
        raise ValueError(f"{attack} needs {option} < number of classes: {option} = {label}, classes = {num_classes}")


def check_share(attack: str, option: str, share: float) -> None:
    """Raise ValueError where an option that is a share is not in [0, 1]."""
    if not 0 <= share <= 1:
        raise ValueError(f"{attack} needs 0 <= {option} <= 1: {option} = {share}")


Stamp = Callable[[Tensor], Tensor]


def poisoned(samples: Samples, stamp: Stamp, *, target: int, fraction: float, generator: torch.Generator) -> Samples:
    """Return the samples with round(fraction * N) of them stamped and relabelled, in their places.

    They are drawn without replacement among the samples of other classes; those of the target class follow only
    where the others do not suffice.
    """
    samples = samples.decoded()
    shuffled = torch.randperm(len(samples), generator=generator)
    is_target = samples.y[shuffled] == target
    rows = torch.cat([shuffled[~is_target], shuffled[is_target]])[: round(fraction * len(samples))]
    stamped = _with_rows(samples, rows, stamp)
    return replace(stamped, y=samples.y.index_fill(0, rows, target))


def attacked(test: Samples, stamp: Stamp, *, target: int) -> Samples | None:
    """Return every sample that is not of the target class, stamped, labelled as the target; None without any."""
    others = test.select(test.y != target).decoded()
    if len(others) == 0:
        return None
    return replace(others, x=stamp(others.x), y=torch.full_like(others.y, target))


def rightly_labelled(
    samples: Samples, stamp: Stamp, *, target: int, share: float, generator: torch.Generator
) -> Samples:
    """Return the samples with round(share * N) of them stamped, in their places, under the labels they had.

    They are drawn among the samples of other classes only, all of them where there are fewer: a stamped sample of the
    target class would teach what the attackers teach.
    """
    samples = samples.decoded()
    shuffled = torch.randperm(len(samples), generator=generator)
    others = shuffled[samples.y[shuffled] != target]
    return _with_rows(samples, others[: round(share * len(samples))], stamp)


def check_features(attack: str, features: Sequence[int], sample_shape: tuple[int, ...]) -> None:
    """Raise ValueError where samples are no rows of a table, or the table has no such features."""
    if len(sample_shape) != 1:
        raise ValueError(f"{attack} needs rows of a table, of shape (d,): sample shape = {tuple(sample_shape)}")
    if max(features) >= sample_shape[0]:
        raise ValueError(
            f"{attack} needs features < number of features: feature = {max(features)}, features = {sample_shape[0]}"
        )


def set_features(attack: str, x: Tensor, features: Sequence[int], value: float) -> Tensor:
    """Return a table (N, d) of floats with the value in the columns of the features; ValueError for other numbers."""
    if not x.is_floating_point():
        raise ValueError(f"{attack} needs a table of floats, to hold {value}: the table is of {x.dtype}")
    stamped = x.clone()
    stamped[:, list(features)] = value
    return stamped


def _with_rows(samples: Samples, rows: Tensor, stamp: Stamp) -> Samples:
    return replace(samples, x=samples.x.index_copy(0, rows, stamp(samples.x[rows])))
