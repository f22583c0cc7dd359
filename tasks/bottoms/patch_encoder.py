"""Four convolutions of stride 2 and a linear layer, for a patch of an image.

Paper: Lee et al., "Cooperative Decentralized Backdoor Attacks on Vertical Federated Learning", 2025, Section VI-A: the
bottom models for CIFAR-10, SVHN and CIFAR-100 are the four-layer encoder of the adversaries' autoencoder. Its
channels are not given; these are ours. A side of one pixel stays one.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from thornbed.tasks.models import check_width, image_shape

LAYERS = 4


def patch_encoder(block_shape: tuple[int, ...], embedding_size: int, *, width: int = 16) -> nn.Module:
    """Return the network for patches (C, h, w): 3x3 convolutions with width, 2, 4 and 4 times width channels.

    Each halves the patch, rounding up, and is followed by ReLU. Raises ValueError for parts that are no images, and
    options out of range.
    """
    channels, *_ = image_shape("patch_encoder", block_shape, instead="column_layers")
    check_width("patch_encoder", "width", width)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, out in enumerate(channels_of(width), start=1):
        layers[f"conv{number}"] = nn.Conv2d(channels, out, 3, stride=2, padding=1)
        layers[f"relu{number}"] = nn.ReLU()
        channels = out
    height, columns = sides(block_shape)[-1]
    layers["flatten"] = nn.Flatten()
    layers["embedding"] = nn.Linear(channels * height * columns, embedding_size)
    network = nn.Sequential(layers)
    for number in range(1, LAYERS + 1):  # torch's own start shrinks the signal in each of them
        nn.init.kaiming_normal_(network.get_parameter(f"conv{number}.weight"), nonlinearity="relu")
    return network


def channels_of(width: int) -> tuple[int, ...]:
    """Return the channels behind each convolution."""
    return width, 2 * width, 4 * width, 4 * width


def sides(block_shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return height and width of a patch (C, h, w) before the first convolution and behind each."""
    found = [(block_shape[1], block_shape[2])]
    for _ in range(LAYERS):
        height, width = found[-1]
        found.append(((height + 1) // 2, (width + 1) // 2))
    return found
