"""Fully connected layers with ReLU between them, for samples of any shape.

Paper: H. B. McMahan, E. Moore, D. Ramage, S. Hampson and B. Agüera y Arcas, "Communication-Efficient Learning of Deep
Networks from Decentralized Data", AISTATS 2017; the defaults are its "2NN", 199,210 parameters on MNIST.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import nn

from thornbed.tasks.models import check_norm, check_width
from thornbed.tasks.models._normalisation import FrozenNorm, Norm


def mlp(
    sample_shape: tuple[int, ...],
    num_classes: int,
    *,
    hidden: tuple[int, ...] = (200, 200),
    norm: Norm = "none",
) -> nn.Module:
    """Return the network; `hidden` are the units of its hidden layers, none of them for a linear model.

    With norm="batch", a training batch needs two samples. Raises ValueError for options out of range.
    """
    check_norm("mlp", norm)
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    features = math.prod(sample_shape)
    for number, units in enumerate(hidden, start=1):
        check_width("mlp", "every entry of hidden", units)
        layers[f"linear{number}"] = nn.Linear(features, units, bias=norm == "none")
        if norm != "none":
            layers[f"norm{number}"] = nn.BatchNorm1d(units) if norm == "batch" else FrozenNorm(units)
        layers[f"relu{number}"] = nn.ReLU()
        features = units
    layers["logits"] = nn.Linear(features, num_classes)
    return nn.Sequential(layers)
