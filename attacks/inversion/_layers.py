"""How much each layer's gradient counts in the distance.

Paper: Xu, Hong, Huang, Chen, Decouchant, "AGIC", SRDS 2022, Section IV-C, Table I and Equations 7 and 8. What the paper
leaves open: layers of batch norm, which are no convolutions and not fully connected; here they may count as fully
connected layers do, as the convolution before them does without its modifier, or not at all.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd as Convolution

from thornbed.attacks.inversion import Observation

Shape = Literal["linear", "exponential", "logarithmic"]
NormWeight = Literal["mean", "preceding", "none"]


def shape_values(shape: Shape, count: int, beta: float) -> list[float]:
    """Return the values at 1, ..., count of the function of a shape that goes through (1, 1) and (count, beta).

    `linear` is a x + b, `exponential` a e^x + b, `logarithmic` a log x + b: with beta > 1 the three increasing
    functions of Table I (neither, convex, concave), with beta < 1 the three decreasing ones (neither, concave, convex),
    with beta = 1 the constant. A single layer has the weight 1.
    """
    if count == 1:
        return [1.0]
    if shape == "linear":
        heights = [(i - 1) / (count - 1) for i in range(1, count + 1)]
    elif shape == "exponential":
        # divided by e^count, which is too large a number for networks of a thousand layers
        lowest = math.exp(1 - count)
        heights = [(math.exp(i - count) - lowest) / (1 - lowest) for i in range(1, count + 1)]
    else:
        heights = [math.log(i) / math.log(count) for i in range(1, count + 1)]
    return [1 + (beta - 1) * height for height in heights]


def layer_weights(
    observation: Observation, *, shape: Shape, beta: float, relu_modifier: bool, batch_norm: NormWeight
) -> dict[str, float]:
    """Return alpha for each of the model's parameters, by name (Equation 8).

    Convolutions are counted in the order in which the model holds them, those of shortcuts among them: 21 in ResNet-20.
    Weight and bias of the i-th have l_i / (1 - p_i), where p_i is the share of zeros in the gradient that was seen of
    its weight, or l_i alone without the modifier and where that gradient is zero throughout, which tells nothing of
    p_i. Fully connected layers, and any other than the ones named here, have the mean of the l_i; of batch norm
    (and other normalisations with parameters) `mean` says the same, `preceding` the l_i of the last convolution before
    them (the first, where there is none before), `none` is 0.

    Raises ValueError for a model without convolutions, which leaves nothing to be weighed, unless beta is 1.
    """
    layers = [(name, layer) for name, layer in observation.model.named_modules() if list(layer.parameters(False))]
    count = sum(isinstance(layer, Convolution) for _, layer in layers)
    if count == 0:
        if beta != 1:
            raise ValueError(
                f"agic weighs layers by the convolutions, and this model has none: beta = {beta}; beta=1 weighs all "
                "layers alike"
            )
        values = [1.0]
    else:
        values = shape_values(shape, count, beta)
    mean, place = sum(values) / len(values), 0
    weights: dict[str, float] = {}
    for name, layer in layers:
        prefix = f"{name}." if name else ""
        if isinstance(layer, Convolution):
            place += 1
            modifier = zero_modifier(observation.gradient[f"{prefix}weight"]) if relu_modifier else 1.0
            weight = values[place - 1] * modifier
        elif _normalises(layer):
            weight = {"mean": mean, "preceding": values[max(place - 1, 0)], "none": 0.0}[batch_norm]
        else:
            weight = mean
        weights.update({f"{prefix}{own}": weight for own, _ in layer.named_parameters(recurse=False)})
    return {name: weights[name] for name, _ in observation.model.named_parameters()}


def zero_modifier(gradient: Tensor) -> float:
    """Return 1 / (1 - p) for the share p of exact zeros in a gradient; 1 where it is zero throughout."""
    present = int(torch.count_nonzero(gradient))
    return gradient.numel() / present if present else 1.0


def _normalises(layer: nn.Module) -> bool:
    kinds = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
    return isinstance(layer, kinds)
