"""What attacks with a trigger share: the rows that are stamped, those that measure, those that honest clients hold.

A stamp is a function that returns decoded samples (k, ...) with the trigger in them, as new tensors of the same shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from thornbed.tasks import Samples

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
