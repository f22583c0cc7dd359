"""The labels of a client's samples, read from the gradient of the last fully connected layer.

Papers: B. Zhao, K. R. Mopuri, H. Bilen, "iDLG: Improved Deep Leakage from Gradients", 2020, for one sample; H. Yin,
A. Mallya, A. Vahdat, J. M. Alvarez, J. Kautz, P. Molchanov, "See through Gradients: Image Batch Recovery via
GradInversion", CVPR 2021, Section 3.2, for several samples with distinct labels.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from attacks.inversion import Observation

Labels = Literal["known", "idlg", "gradinversion"]


def infer_labels(attack: str, observation: Observation, method: Labels) -> Tensor:
    """Return the labels (n,) int64 of an observation's samples: those that are known, or inferred and sorted.

    - `known`: as the observation has them.
    - `idlg`: one sample. Row c of the layer's gradient is (p_c - [c = y]) h with the features h and probabilities p,
      so the row of the label is the one with no positive inner product with any other. Exact for more than two
      classes; for two the bias tells, or, without one, that features after ReLU are not negative.
    - `gradinversion`: the n classes whose rows have the smallest minimum. Right where every label occurs once and
      features are not negative, as after ReLU.

    Raises ValueError, in the name of the attack, where the labels are not known, where idlg is to read several samples
    or gradinversion more samples than there are classes, and where the model ends with no fully connected layer.
    """
    if method not in get_args(Labels):
        raise ValueError(f"{attack} needs labels out of {', '.join(get_args(Labels))}: labels = {method}")
    if method == "known":
        if observation.labels is None:
            raise ValueError(f'{attack}(labels="known") needs observations that have their labels: this one has none')
        return observation.labels.clone()
    n, classes = observation.num_samples, observation.num_classes
    if method == "idlg" and n != 1:
        raise ValueError(f'{attack}(labels="idlg") reads the label of one sample: num_samples = {n}')
    if n > classes:
        raise ValueError(
            f'{attack}(labels="gradinversion") infers labels that differ: num_samples = {n}, num_classes = {classes}'
        )
    layer = last_layer(attack, observation)
    rows = observation.gradient[f"{layer}.weight" if layer else "weight"].detach().to(torch.float64)
    bias = observation.gradient.get(f"{layer}.bias" if layer else "bias")
    if method == "gradinversion":
        return rows.amin(dim=1).argsort(stable=True)[:n].sort().values.cpu()
    if bias is not None and classes == 2:
        return bias.detach().argmin().view(1).cpu()
    if classes == 2:
        return rows.sum(dim=1).argmin().view(1).cpu()
    products = rows @ rows.T
    products.fill_diagonal_(0)
    return products.clamp(min=0).sum(dim=1).argmin().view(1).cpu()


def last_layer(attack: str, observation: Observation) -> str:
    """Return the name of the last fully connected layer, which has an output for each class."""
    named = [(name, layer) for name, layer in observation.model.named_modules() if isinstance(layer, nn.Linear)]
    if not named or named[-1][1].out_features != observation.num_classes:
        raise ValueError(
            f"{attack} infers labels from a last fully connected layer with {observation.num_classes} outputs, "
            'which this model lacks; give the observations labels, and the attack labels="known"'
        )
    return named[-1][0]
