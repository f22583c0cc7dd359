"""Networks, one a file: `NAME(sample_shape, num_classes, *, options) -> nn.Module` returns logits (n, num_classes).

Initial weights come from torch's current generator; the caller forks and seeds it, as `HorizontalRun.new_model` does.
What these functions return expects normalised input; `normalised` turns it into a network that takes decoded samples,
and `embedded` into one that takes token ids.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn


def normalised(network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> nn.Module:
    """Return a copy of the network that first turns each channel or feature c of its input into (x - mean_c) / std_c.

    The parameters, their names and the state_dict are exactly the network's own, so weights go back and forth between
    the two: the constants are buffers outside the state_dict, and the step is a hook before the forward pass rather
    than a module around the network. `mean` and `std` describe decoded samples (n, c, ...) as in `Task`, one entry
    per channel or feature; both empty: a plain copy. Raises ValueError where their lengths differ, where a deviation
    is not above 0, or where the network normalises already.
    """
    if len(mean) != len(std):
        raise ValueError(f"normalisation needs as many means as deviations: {len(mean)} means, {len(std)} deviations")
    if any(not deviation > 0 for deviation in std):
        raise ValueError(f"normalisation needs deviations above 0: std = {std}")
    if hasattr(network, "input_mean"):
        raise ValueError("the network normalises its input already; normalise the one it was made from")
    network = copy.deepcopy(network)
    if mean:
        network.register_buffer("input_mean", torch.tensor(mean), persistent=False)
        network.register_buffer("input_std", torch.tensor(std), persistent=False)
        network.register_forward_pre_hook(_normalise)
    return network


def embedded(network: nn.Module, vectors: Tensor) -> nn.Module:
    """Return a copy of the network that first looks up the vector of each token: int64 ids (n, L) -> float32 (n, L, D).

    The parameters, their names and the state_dict are exactly the network's own: `vectors` (V, D) float32, as in
    `Task`, are a buffer outside the state_dict, so they are neither learned nor sent; the copy shares their memory
    and changes nothing in it. Raises ValueError where they are no such table, and where the network embeds or
    normalises already; the network returned raises it for input that is no int64 (n, L).
    """
    if vectors.ndim != 2 or vectors.dtype != torch.float32:
        raise ValueError(f"embedding needs vectors (V, D) float32: they are {tuple(vectors.shape)} {vectors.dtype}")
    if hasattr(network, "token_vectors") or hasattr(network, "input_mean"):
        raise ValueError("the network embeds or normalises its input already; embed the one it was made from")
    network = copy.deepcopy(network)
    network.register_buffer("token_vectors", vectors, persistent=False)
    network.register_forward_pre_hook(_embed)
    return network


def channels_last(network: nn.Module) -> nn.Module:
    """Return the network with its parameters in channels_last, or as it came where that is unsafe.

    Convolutions on a CPU are about a quarter faster with the channels last; values and names stay the same. oneDNN as
    torch 2.13 brings it writes past the end of its memory there (a segmentation fault, or worse none) in the gradient
    of a 1x1 convolution with a stride and fewer input channels than a vector register holds: 16 numbers with AVX-512,
    8 with AVX2, on images from sides of 32 to 56 on. A network with such a convolution stays as it came, on every
    machine, so that one seed gives one result.
    """
    if any(_unsafe_in_channels_last(module) for module in network.modules()):
        return network
    return cast(nn.Module, cast(Any, network).to(memory_format=torch.channels_last))  # torch's stubs lack the overload


def _unsafe_in_channels_last(module: nn.Module) -> bool:
    """Tell whether a module is a strided 1x1 convolution with fewer than 16 input channels in a group."""
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and max(module.stride) > 1
        and module.in_channels // module.groups < 16
    )


def _embed(network: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Look up the first of the inputs; a function of the module, as `_normalise` is."""
    ids, *others = inputs
    if ids.ndim != 2 or ids.dtype != torch.int64:
        raise ValueError(f"the embedding takes token ids (n, L) int64: the input is {tuple(ids.shape)} {ids.dtype}")
    return (nn.functional.embedding(ids, cast(Tensor, network.token_vectors)), *others)


def _normalise(network: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Normalise the first of the inputs; a function of the module, so that copies and pickles use their own buffers."""
    x, *others = inputs
    return ((x - _per_channel(network.input_mean, x)) / _per_channel(network.input_std, x), *others)


def _per_channel(constants: Any, x: Tensor) -> Tensor:
    """(c,) -> (c, 1, ...), so that it meets the second axis of x (n, c, ...)."""
    if x.shape[1] != len(constants):
        raise ValueError(f"the input has {x.shape[1]} channels or features, the normalisation {len(constants)}")
    return constants.view(-1, *[1] * (x.ndim - 2))


def image_shape(model: str, sample_shape: tuple[int, ...], *, instead: str = "mlp") -> tuple[int, int, int]:
    """Return (C, H, W), or raise ValueError where samples are no images, with the name of a model that takes them."""
    if len(sample_shape) != 3:
        raise ValueError(
            f"{model} takes images of shape (channels, height, width): one sample has shape {tuple(sample_shape)}; "
            f"{instead} takes samples of any shape"
        )
    channels, height, width = sample_shape
    return channels, height, width


def sequence_shape(model: str, sample_shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (length, features), or raise ValueError where samples are no sequences of vectors."""
    if len(sample_shape) != 2:
        raise ValueError(
            f"{model} takes sequences of shape (length, features): one sample has shape {tuple(sample_shape)}; "
            "mlp takes samples of any shape"
        )
    length, features = sample_shape
    return length, features


def check_norm(model: str, norm: str) -> None:
    """Raise ValueError unless `norm` is "batch", "frozen" or "none"."""
    if norm not in ("batch", "frozen", "none"):
        raise ValueError(f'{model} takes norm "batch", "frozen" or "none": norm = {norm!r}')


def check_initial(model: str, initial: str) -> None:
    """Raise ValueError unless `initial` is "he" or "torch"."""
    if initial not in ("he", "torch"):
        raise ValueError(f'{model} takes initial "he" or "torch": initial = {initial!r}')


def check_width(model: str, option: str, width: int) -> None:
    """Raise ValueError unless a layer has at least one unit or channel."""
    if width < 1:
        raise ValueError(f"{model} needs {option} >= 1: {option} = {width}")
