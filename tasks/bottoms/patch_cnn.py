"""Two convolutions and a linear layer, for a patch of an image.

Paper: Lee et al., "Cooperative Decentralized Backdoor Attacks on Vertical Federated Learning", 2025, Section VI-A: a
two-layer convolutional network for MNIST and Fashion-MNIST. Its channels are not given; these are ours.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from thornbed.tasks.models import check_width, image_shape


def patch_cnn(block_shape: tuple[int, ...], embedding_size: int, *, width: int = 16) -> nn.Module:
    """Return the network for patches (C, h, w): 3x3 convolutions with width and 2 times width channels.

    Each is followed by ReLU and halves the patch where its shorter side is above 3. Raises ValueError for parts that
    are no images, and options out of range.
    """
    channels, height, columns = image_shape("patch_cnn", block_shape, instead="column_layers")
    check_width("patch_cnn", "width", width)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, out in enumerate((width, 2 * width), start=1):
        layers[f"conv{number}"] = nn.Conv2d(channels, out, 3, padding=1)
        layers[f"relu{number}"] = nn.ReLU()
        if min(height, columns) > 3:
            layers[f"pool{number}"] = nn.MaxPool2d(2)
            height, columns = height // 2, columns // 2
        channels = out
    layers["flatten"] = nn.Flatten()
    layers["embedding"] = nn.Linear(channels * height * columns, embedding_size)
    return nn.Sequential(layers)
