"""What an inversion minimises, for many inversions in one computation.

A problem is a set of images and the views on them: an update that some of the images went into. One update read alone
is a problem with a single view; updates of several epochs share images (Equation 5 of the AGIC paper). Problems alike
in shape are computed together: `torch.func.vmap` over the gradients of one network, which keeps one copy of the
network's weights where it is the same for all, and stacks them where it is not.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import vmap

from thornbed.attacks.inversion import InversionWarning, LocalSteps, Observation, UnknownLearningRate
from thornbed.attacks.inversion._network import Network, Tensors, structure

LARGE_LEARNING_RATE = 0.01


@dataclass(frozen=True, eq=False)
class ObservedView:
    """An update, and which images of a problem went into it: `rows` (n,), in the order of its samples, with `labels`.

    The labels (n,) are those that this update shows. `layer_weights`, by the name of a parameter, say how much each
    counts in the distance; those without one, or with 0, do not. `gamma` is the weight of the whole view.
    """

    observation: Observation
    rows: Tensor
    labels: Tensor
    layer_weights: Mapping[str, float]
    gamma: float = 1.0


@dataclass(frozen=True, eq=False)
class Problem:
    """Images to be found, (m, C, H, W) with `labels` (m,) to report, and the updates they have to explain."""

    views: tuple[ObservedView, ...]
    labels: Tensor

    @property
    def first(self) -> Observation:
        """Return the observation of the first view, which speaks for all in what they have in common."""
        return self.views[0].observation


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The distance between gradients, how local steps are read, and the weight of the total variation."""

    distance: Literal["cosine", "l2"]
    local_steps: LocalSteps
    total_variation: float

    def check(self, attack: str, observations: Sequence[Observation]) -> None:
        """Raise in the name of the attack for options out of range, and observations that it cannot read so.

        Warns with `InversionWarning` where several steps at a learning rate that moves the model much are to be read as
        one: the paper's Section IV-A advises against it at 0.01, and has 0.0001.
        """
        if not 0 <= self.total_variation < float("inf"):
            raise ValueError(f"{attack} needs a finite total_variation >= 0: total_variation = {self.total_variation}")
        if self.local_steps not in get_args(LocalSteps):
            raise ValueError(
                f"{attack} needs local_steps out of {', '.join(get_args(LocalSteps))}: local_steps = {self.local_steps}"
            )
        for each in observations:
            if not isinstance(each, Observation):
                raise TypeError(f"{attack} takes a sequence of observations: one is a {type(each).__name__}")
        several = [each for each in observations if each.local_steps > 1]
        if self.local_steps == "simulated" and any(each.learning_rate is None for each in several):
            raise UnknownLearningRate(
                f"{attack} simulates local steps at the learning rate of the client, which is not known: "
                f'local_steps="one_batch" needs none'
            )
        rates = [each.learning_rate for each in several if each.learning_rate is not None]
        if self.local_steps == "one_batch" and rates and max(rates) >= LARGE_LEARNING_RATE:
            warnings.warn(
                f"{attack} reads several local steps as one, which is good for small steps only: learning rates are up "
                f"to {max(rates):g}, the paper has 0.0001 and advises against 0.01",
                InversionWarning,
                stacklevel=3,
            )

    def fault(self, problem: Problem) -> str | None:
        """Return why a search has nothing to go by, as a sentence: an update whose distance to any image is no number.

        One that is not finite has none, nor has one of zeros by the cosine, which compares directions.
        """
        for view in problem.views:
            weighed = [view.observation.gradient[name] for name, weight in view.layer_weights.items() if weight > 0]
            if any(not bool(tensor.isfinite().all()) for tensor in weighed):
                return "the update is not finite"
            if self.distance == "cosine" and not any(bool(tensor.any()) for tensor in weighed):
                return "the update is zero, and has no direction"
        return None

    def key(self, problem: Problem) -> Hashable:
        """Return what problems must have in common to be computed together."""
        views = []
        for view in problem.views:
            seen = view.observation
            steps: Hashable = None
            if self.local_steps == "simulated":
                steps = (seen.learning_rate, tuple(len(rows) for rows in seen.batches))
            names = tuple(name for name, weight in view.layer_weights.items() if weight > 0)
            views.append((structure(seen.model), seen.batch_norm, len(view.rows), names, steps, seen.mean, seen.std))
        return len(problem.labels), problem.first.sample_shape, tuple(views)

    def of(self, problems: Sequence[Problem]) -> Callable[[Tensor], Tensor]:
        """Return the function z (p, m, C, H, W) -> losses (p,) of problems with one key.

        z are images in the attack's coordinates, (x - mean) / std. The gradients inside are always computed; that of
        the losses with respect to z where autograd is on.
        """
        views = [_Stacked([problem.views[k] for problem in problems], self) for k in range(len(problems[0].views))]
        mean, std = coordinates(problems[0].first)

        def losses(z: Tensor) -> Tensor:
            pixels = z * std + mean
            total = sum((view.distances(pixels) for view in views), start=z.new_zeros(len(z)))
            if self.total_variation > 0:
                total = total + self.total_variation * total_variation(z)
            return total

        return losses


def coordinates(observation: Observation) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each channel, (C, 1, 1), typed as the parameters; 0 and 1 where there are none."""
    like = next(observation.model.parameters())
    mean, std = observation.mean or (0.0,), observation.std or (1.0,)
    return like.new_tensor(mean).view(-1, 1, 1), like.new_tensor(std).view(-1, 1, 1)


def total_variation(images: Tensor) -> Tensor:
    """Return the anisotropic total variation of each row of (p, m, C, H, W), (p,).

    The mean absolute difference of neighbours in a row plus that of neighbours in a column; Rudin, Osher, Fatemi,
    "Nonlinear Total Variation Based Noise Removal Algorithms", Physica D 1992, in the form of Inverting Gradients.
    """
    total = images.new_zeros(len(images))
    for dim in (-1, -2):
        if images.shape[dim] > 1:
            total = total + images.diff(dim=dim).abs().flatten(1).mean(dim=1)
    return total


class _Stacked:
    """The views in the same place of several problems; what they share is held once, the rest is stacked."""

    def __init__(self, views: Sequence[ObservedView], objective: Objective) -> None:
        first = views[0]
        self.objective, self.observation, self.together = objective, first.observation, len(views)
        self.network = Network(first.observation)
        self.names = [name for name, weight in first.layer_weights.items() if weight > 0]
        # Listed only where they are gone through: a recording may say that there were a billion.
        self.batches = first.observation.batches if objective.local_steps == "simulated" else []
        parameters: Tensors = self.network.parameters
        buffers: Tensors = self.network.buffers
        models_in = None
        if any(view.observation.model is not first.observation.model for view in views):
            models_in = 0
            models = [
                (dict(v.observation.model.named_parameters()), dict(v.observation.model.named_buffers())) for v in views
            ]
            parameters = {
                name: torch.stack([own[name].detach() for own, _ in models]).contiguous() for name in parameters
            }
            buffers = {name: torch.stack([own[name] for _, own in models]) for name in buffers}
        device = next(iter(self.network.parameters.values())).device
        targets = {
            name: torch.stack([view.observation.gradient[name].detach().flatten() for view in views]).to(device)
            for name in self.names
        }
        weights = [[view.layer_weights[name] for name in self.names] for view in views]
        like = targets[self.names[0]]
        layers = like.new_tensor(weights)
        squares = torch.stack([tensor.square().sum(dim=1) for tensor in targets.values()], dim=1)
        sizes = (layers * squares).sum(dim=1).sqrt()
        rows = torch.stack([view.rows for view in views]).to(device)
        labels = torch.stack([view.labels for view in views]).to(device)
        gammas = like.new_tensor([view.gamma for view in views])
        self._arguments = (parameters, buffers, targets, sizes, layers, rows, labels, gammas)
        self._in_dims = (models_in, models_in, 0, 0, 0, 0, 0, 0)

    def distances(self, pixels: Tensor) -> Tensor:
        """Return gamma times the distance for each problem, (p,); pixels (p, m, C, H, W)."""
        arguments, in_dims = self._arguments, self._in_dims
        if self.together == 1:  # without vmap, whose bookkeeping a single inversion would pay for nothing
            single = [_only(argument, dim) for argument, dim in zip(arguments, in_dims, strict=True)]
            return self._distance(pixels[0], *single).unsqueeze(0)
        batched: Tensor = vmap(self._distance, in_dims=(0, *in_dims))(pixels, *arguments)
        return batched

    def _distance(
        self,
        pixels: Tensor,
        parameters: Tensors,
        buffers: Tensors,
        targets: Tensors,
        size: Tensor,
        layers: Tensor,
        rows: Tensor,
        labels: Tensor,
        gamma: Tensor,
    ) -> Tensor:
        pixels = pixels.index_select(0, rows)
        if len(self.batches) > 1:
            rate = self.observation.learning_rate
            assert rate is not None  # the attack has checked it
            gradient = self.network.mean_gradient(parameters, buffers, pixels, labels, self.batches, rate)
        else:
            gradient = self.network.gradient(parameters, buffers, pixels, labels)
        # Layer by layer: joined into one vector, a large network's gradient would be read and written once more.
        pairs = [(gradient[name].flatten(), targets[name]) for name in self.names]
        if self.objective.distance == "l2":
            differences = [own - target for own, target in pairs]
            return gamma * (layers * torch.stack([torch.dot(each, each) for each in differences])).sum()
        products = (layers * torch.stack([torch.dot(own, target) for own, target in pairs])).sum()
        squares = (layers * torch.stack([torch.dot(own, own) for own, _ in pairs])).sum()
        return gamma * (1 - products / (squares.sqrt() * size))


def _only(argument: Any, dim: int | None) -> Any:
    """Return a stack's only entry, of a tensor or of each of several; what is not stacked as it is."""
    if dim is None:
        return argument
    return {name: tensor[0] for name, tensor in argument.items()} if isinstance(argument, Mapping) else argument[0]


def weigh_all(model: nn.Module) -> dict[str, float]:
    """Return the weight 1 for every parameter."""
    return {name: 1.0 for name, _ in model.named_parameters()}


def alone(observation: Observation, labels: Tensor, layer_weights: Mapping[str, float]) -> Problem:
    """Return the problem of one update, all of whose images have to be found."""
    return Problem((ObservedView(observation, torch.arange(observation.num_samples), labels, layer_weights),), labels)
