"""The labels of a client's samples, read from the gradient of the last fully connected layer.

Papers: B. Zhao, K. R. Mopuri, H. Bilen, "iDLG: Improved Deep Leakage from Gradients", 2020, for one sample; H. Yin,
A. Mallya, A. Vahdat, J. M. Alvarez, J. Kautz, P. Molchanov, "See through Gradients: Image Batch Recovery via
GradInversion", CVPR 2021, Section 3.2, for several samples with distinct labels; J. Geng, Y. Mou, F. Li, Q. Li,
O. Beyan, S. Decker, C. Rong, "Towards General Deep Leakage in Federated Learning", 2021, for labels that repeat.
"""

from __future__ import annotations

import copy
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from thornbed.attacks.inversion import Observation

NOISE = 64
Labels = Literal["known", "idlg", "gradinversion", "counts"]


def infer_labels(attack: str, observation: Observation, method: Labels) -> Tensor:
    """Return the labels (n,) int64 of an observation's samples: those that are known, or inferred and sorted.

    - `known`: as the observation has them.
    - `idlg`: one sample. The bias of class c has the gradient p_c - [c = y], negative for the label alone. Without a
      bias, row c of the layer's gradient is (p_c - [c = y]) h with the features h, so the row of the label is the one
      with no positive inner product with any other; for two classes, features after ReLU are not negative.
    - `gradinversion`: the n classes whose rows have the smallest minimum. Right where every label occurs once and
      features are not negative, as after ReLU.
    - `counts`: labels may repeat. The bias of class c has the gradient mean p_c - k_c / n with k_c samples of class c,
      so k_c = n (mean p_c - gradient), where the mean probability p_c is taken from images of noise, and the n largest
      shares win. Near for untrained networks, whose probabilities are much the same whatever they are shown.

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
    if method == "gradinversion" and n > classes:
        raise ValueError(
            f'{attack}(labels="gradinversion") infers labels that differ: num_samples = {n}, num_classes = {classes}; '
            'labels="counts" infers such as repeat'
        )
    layer = last_layer(attack, observation)
    rows = observation.gradient[f"{layer}.weight" if layer else "weight"].detach().to(torch.float64)
    bias = observation.gradient.get(f"{layer}.bias" if layer else "bias")
    if method == "counts":
        if bias is None:
            raise ValueError(f'{attack}(labels="counts") reads the bias of the last layer, and this one has none')
        seen = bias.detach().to("cpu", torch.float64)
        # where it tells nothing at all, the model need not be asked
        return _repeated(n, seen if bool(seen.isnan().all()) else _mean_probabilities(observation) - seen)
    if method == "gradinversion":
        return rows.amin(dim=1).argsort(stable=True)[:n].sort().values.cpu()
    if bias is not None:
        return bias.detach().argmin().view(1).cpu()
    if classes == 2:
        return rows.sum(dim=1).argmin().view(1).cpu()
    products = rows @ rows.T
    products.fill_diagonal_(0)
    return products.clamp(min=0).sum(dim=1).argmin().view(1).cpu()


def _mean_probabilities(observation: Observation) -> Tensor:
    """Return what the model expects of each class (num_classes,), on noise as far from the mean as the data are."""
    like = next(observation.model.parameters())
    mean, std = observation.mean or (0.5,), observation.std or (0.25,)
    # Seeded by itself: whichever noise it is, the mean over many images hardly moves.
    noise = torch.randn((NOISE, *observation.sample_shape), generator=torch.Generator().manual_seed(0))
    images = noise * torch.tensor(std).view(-1, 1, 1) + torch.tensor(mean).view(-1, 1, 1)
    model = copy.deepcopy(observation.model)
    model.train(observation.batch_norm == "training")
    with torch.no_grad():
        logits = model(images.clamp(0, 1).to(like.device, like.dtype))
    return logits.softmax(dim=1).mean(dim=0).to("cpu", torch.float64)


def _repeated(n: int, shares: Tensor) -> Tensor:
    """Return n labels (n,), ascending, as many of each as its share of n says; the largest remainders fill the rest.

    A class has at most all of them, and none where its share is NaN, as a client that diverged has it.
    """
    wanted = n * shares.nan_to_num(nan=0.0).clamp(0, 1)
    counts = wanted.floor().to(torch.int64)
    while int(counts.sum()) > n:  # shares of noise can come to more than one
        counts[(wanted - counts).masked_fill(counts == 0, torch.inf).argmin()] -= 1
    rest = (wanted - counts).argsort(descending=True, stable=True)[: n - int(counts.sum())]
    counts[rest] += 1
    short = n - int(counts.sum())  # more than there are classes: the largest share has them all
    counts[wanted.argmax()] += short
    return torch.arange(len(counts)).repeat_interleave(counts)


def last_layer(attack: str, observation: Observation) -> str:
    """Return the name of the last fully connected layer, which has an output for each class."""
    named = [(name, layer) for name, layer in observation.model.named_modules() if isinstance(layer, nn.Linear)]
    if not named or named[-1][1].out_features != observation.num_classes:
        raise ValueError(
            f"{attack} infers labels from a last fully connected layer with {observation.num_classes} outputs, "
            'which this model lacks; give the observations labels, and the attack labels="known"'
        )
    return named[-1][0]
