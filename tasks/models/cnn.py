"""A small convolutional network: three convolutions and two linear layers.

Source: the network of TensorFlow's tutorial "Convolutional Neural Network (CNN)" in its sizes, 122,570 parameters on
CIFAR-10, with zero padding, so that images of 8x8 pixels pass as well. Weights start as in K. He, X. Zhang, S. Ren and
J. Sun, "Delving Deep into Rectifiers", ICCV 2015: torch's own start shrinks the signal layer by layer, and without
batch norm federated training then stands still for its first rounds.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from thornbed.tasks.models import check_norm, check_width, image_shape
from thornbed.tasks.models._normalisation import Norm, normalisation


def cnn(
    sample_shape: tuple[int, ...],
    num_classes: int,
    *,
    norm: Norm = "none",
    width: int = 32,
) -> nn.Module:
    """Return the network for images (C, H, W).

    Three 3x3 convolutions with width, 2 and 2 times width channels, each halving the image as long as its shorter side
    is above 4; a linear layer of 2 times width units; the logits. Raises ValueError for samples that are no images and
    for options out of range.
    """
    in_channels, height, image_width = image_shape("cnn", sample_shape)
    check_norm("cnn", norm)
    check_width("cnn", "width", width)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, channels in enumerate((width, 2 * width, 2 * width), start=1):
        layers[f"conv{number}"] = nn.Conv2d(in_channels, channels, 3, padding=1, bias=norm == "none")
        if norm != "none":
            layers[f"norm{number}"] = normalisation(channels, norm)
        layers[f"relu{number}"] = nn.ReLU()
        if min(height, image_width) > 4:
            layers[f"pool{number}"] = nn.MaxPool2d(2)
            height, image_width = height // 2, image_width // 2
        in_channels = channels
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(in_channels * height * image_width, 2 * width)
    layers["relu"] = nn.ReLU()
    layers["logits"] = nn.Linear(2 * width, num_classes)
    network = nn.Sequential(layers)
    for name in ("conv1", "conv2", "conv3", "linear"):
        nn.init.kaiming_normal_(network.get_parameter(f"{name}.weight"), nonlinearity="relu")
    return network
