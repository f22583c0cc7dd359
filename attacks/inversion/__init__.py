"""Reconstruction of a client's images from what it sends, one attack a file.

`NAME(observations, generator, *, options) -> list[Reconstruction]`, one for each observation, in their order. The
attacker is the server: it knows the model that it sent and what came back, not the images, which have no place in
`Observation`. Whoever has them compares afterwards, with `tasks.metrics`. Inputs are never modified; randomness comes
from the generator alone.

What an attack cannot read it refuses with ValueError, whatever the gradient is; where the gradient is not finite, its
inversion ends at once, however many steps there were to be. So a run can show it, before it trains, updates like those
that it will read, without a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

BatchNormMode = Literal["evaluation", "training"]
LocalSteps = Literal["one_batch", "simulated"]
"""How several local steps are read: as one gradient of all samples, or by going through them one by one."""


class UnknownLearningRate(ValueError):
    """An attack simulates local steps of a client whose learning rate is not known."""


class InversionWarning(UserWarning):
    """What an attack does all the same, although it can hardly come out well."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Observation:
    """What the server knows of one client's work in one round.

    Attributes
    ----------
    model : the network in the state that the server sent, from decoded images (n, C, H, W) in [0, 1] to logits
        (n, num_classes); a network of `tasks.models.normalised` takes them so.
    gradient : by the name of each of the model's parameters, the gradient of the mean cross-entropy; of several local
        steps the mean of their gradients, as `gradient_of_update` has it. A client that diverged may have sent values
        that are not finite.
    num_samples : images that went into it, n >= 1.
    sample_shape : (C, H, W).
    num_classes : outputs of the model.
    mean, std : of the data, one entry per channel; the attack searches in (x - mean) / std. Empty: in x itself.
    labels : (n,) int64, where the server knows them; in the order in which the local steps use the samples.
    batch_norm : what layers of batch norm normalised with when the client trained: their running statistics, as in
        evaluation, or those of each batch. The attacker does the same.
    learning_rate : of the client's plain SGD; None where it is not known.
    local_steps : of SGD, T >= 1.
    batch_size : of a local step; None: all samples in each. The samples follow each other in batches of this size, the
        last one may be smaller, and after the last comes the first again. Where that is not what a client does, a
        sequence of sizes, whose sum is num_samples: those of the steps until all samples had their turn.
    client, epoch : who sent it, and in which pass over its data, from 1; for attacks that use several passes.

    Raises ValueError with both numbers where these contradict each other or the model.
    """

    model: nn.Module
    gradient: Mapping[str, Tensor]
    num_samples: int
    sample_shape: tuple[int, ...]
    num_classes: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    labels: Tensor | None = None
    batch_norm: BatchNormMode = "evaluation"
    learning_rate: float | None = None
    local_steps: int = 1
    batch_size: int | Sequence[int] | None = None
    client: int = 0
    epoch: int = 1

    def __post_init__(self) -> None:
        if len(self.sample_shape) != 3:
            raise ValueError(
                f"inversions read images of shape (C, H, W): one sample of this task has shape {self.sample_shape}"
            )
        for field in ("num_samples", "num_classes", "local_steps", "epoch"):
            if (number := getattr(self, field)) < 1:
                raise ValueError(f"an observation needs {field} >= 1: {field} = {number}")
        self._check_batch_size()
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise ValueError(f"an observation needs a finite learning_rate > 0: learning_rate = {self.learning_rate}")
        if self.batch_norm not in ("evaluation", "training"):
            raise ValueError(f'an observation has batch_norm "evaluation" or "training", not {self.batch_norm!r}')
        self._check_normalisation()
        self._check_labels()
        check_names(self.model, self.gradient, "gradient")

    def _check_batch_size(self) -> None:
        sizes = self.batch_size
        if isinstance(sizes, Sequence):
            if min(sizes, default=0) < 1 or sum(sizes) != self.num_samples:
                raise ValueError(
                    "an observation needs sizes of batches >= 1 whose sum is num_samples: "
                    f"batch_size = {list(sizes)}, num_samples = {self.num_samples}"
                )
        elif sizes is not None and not 1 <= sizes <= self.num_samples:
            raise ValueError(
                "an observation needs 1 <= batch_size <= num_samples: "
                f"batch_size = {sizes}, num_samples = {self.num_samples}"
            )

    def _check_normalisation(self) -> None:
        channels = self.sample_shape[0]
        if len(self.mean) != len(self.std) or len(self.mean) not in (0, channels):
            raise ValueError(
                "an observation needs a mean and a deviation for each channel, or none: "
                f"channels = {channels}, means = {len(self.mean)}, deviations = {len(self.std)}"
            )
        if any(not deviation > 0 for deviation in self.std):
            raise ValueError(f"an observation needs deviations above 0: std = {self.std}")

    def _check_labels(self) -> None:
        if self.labels is None:
            return
        if tuple(self.labels.shape) != (self.num_samples,):
            raise ValueError(
                f"an observation of {self.num_samples} samples has as many labels: shape {tuple(self.labels.shape)}"
            )
        if bool(((self.labels < 0) | (self.labels >= self.num_classes)).any()):
            raise ValueError(
                f"labels lie in [0, {self.num_classes}): they go from {int(self.labels.min())} to "
                f"{int(self.labels.max())}"
            )

    @property
    def batches(self) -> list[Tensor]:
        """Return the rows of the samples that each local step uses, T tensors (b,) int64."""
        sizes = self.batch_size or self.num_samples
        whole = torch.arange(self.num_samples).split(sizes if isinstance(sizes, int) else list(sizes))
        return [whole[step % len(whole)] for step in range(self.local_steps)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reconstruction:
    """What an attack makes of one observation.

    Attributes
    ----------
    images : (n, C, H, W), in [0, 1], clipped where the attack's own lie outside; in an order of the attack's own.
    labels : (n,) int64, those the images were sought with.
    losses : (steps + 1,) what the attack minimises, before the first step and after each; NaN after it has ended.
        They begin anew, one after the other, where an attack has several stages, and are those of the last.
    best_step : the images are the iterate after so many steps, the one with the smallest loss.
    seconds_per_step : of the whole computation, which took a step of `together` inversions at once; 0 where none was
        taken.
    together : inversions that shared each step, restarts counted.
    snapshots : (k, n, C, H, W), in [0, 1], the iterates after `snapshot_steps` steps.
    failure : why the attack ended before its last step, as a sentence; None where it did not.
    samples : of attacks that put updates together, which sample of the client each image (n,) is taken for: images of
        one client with the same number are taken for the same sample. Empty of attacks that do not.
    """

    images: Tensor
    labels: Tensor
    losses: Tensor
    best_step: int
    seconds_per_step: float
    together: int
    snapshots: Tensor
    snapshot_steps: tuple[int, ...]
    failure: str | None = None
    samples: tuple[int, ...] = ()


def gradient_of_update(
    sent: Mapping[str, Tensor],
    received: Mapping[str, Tensor],
    *,
    learning_rate: float,
    local_steps: int = 1,
) -> dict[str, Tensor]:
    """Return (sent - received) / (learning_rate * local_steps), tensor by tensor: the mean gradient of plain SGD.

    This is Equation 4 of the AGIC paper, divided by the number of steps, so that the loss is a mean over all samples
    wherever steps are equally large. With momentum the early steps weigh more, and it is only a direction. `received`
    may hold more than `sent`, such as statistics of batch norm. Raises ValueError where a tensor is missing or has
    another shape, and for a learning rate or number of steps that are not above 0.
    """
    if not 0 < learning_rate < math.inf or local_steps < 1:
        raise ValueError(
            "the gradient of an update needs a finite learning_rate > 0 and local_steps >= 1: "
            f"learning_rate = {learning_rate}, local_steps = {local_steps}"
        )
    for name, tensor in sent.items():
        if name not in received:
            raise ValueError(f"the update lacks {name}, which the server sent")
        if received[name].shape != tensor.shape:
            raise ValueError(
                f"the update has {name} of shape {tuple(received[name].shape)}, the server sent {tuple(tensor.shape)}"
            )
    return {
        name: (tensor.detach() - received[name].detach()) / (learning_rate * local_steps)
        for name, tensor in sent.items()
    }


def check_names(model: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Raise ValueError unless there is one tensor for each of the model's parameters, of its shape, and no other."""
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    if missing := sorted(shapes.keys() - tensors.keys()):
        raise ValueError(f"the {what} does not fit the model: it lacks {missing[0]} ({len(missing)} such)")
    if unknown := sorted(tensors.keys() - shapes.keys()):
        raise ValueError(
            f"the {what} does not fit the model: it has {unknown[0]}, no parameter of it ({len(unknown)} such)"
        )
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            raise ValueError(
                f"the {what} does not fit the model: {name} has shape {tuple(tensors[name].shape)}, "
                f"the parameter {shape}"
            )
