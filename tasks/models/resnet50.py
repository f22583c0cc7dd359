"""ResNet-50 for photographs, torchvision's definition of it, with weights drawn anew.

Paper: K. He, X. Zhang, S. Ren and J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, Table 1, with the
stride in the 3x3 convolution of a block, as torchvision has it. It downloads nothing.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from thornbed.tasks.models import check_width, image_shape
from thornbed.tasks.sources.torchvision_shim import declare_missing_operators


def resnet50(
    sample_shape: tuple[int, ...], num_classes: int, *, norm: Literal["batch"] = "batch", width: int = 64
) -> nn.Module:
    """Return the network for images (C, H, W), 224 x 224 in the paper: 25.6 million parameters at 1,000 classes.

    Four stages of 3, 4, 6 and 3 blocks of three convolutions, 53 convolutions with the stem and the four of the
    shortcuts. `width` are the channels of the 3x3 convolutions in the first stage, twice as many in each that follows;
    what leads from block to block keeps its size. The image is divided by 32, so a training batch needs two images
    where sides are at most 32. There is none without batch norm. Raises ValueError for samples that are no images and
    for options out of range.
    """
    channels = image_shape("resnet50", sample_shape)[0]
    if norm != "batch":
        raise ValueError(f'resnet50 takes norm "batch" alone: norm = {norm!r}')
    check_width("resnet50", "width", width)
    declare_missing_operators()
    from torchvision.models.resnet import Bottleneck, ResNet

    network: nn.Module = ResNet(Bottleneck, [3, 4, 6, 3], num_classes=num_classes, width_per_group=width)
    if channels != 3:
        stem = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        network.conv1 = stem
    return network
