"""ResNet-18, with the stem for small images where images are small.

Paper: K. He, X. Zhang, S. Ren and J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, Table 1. The
3x3 stem for small images is that of their CIFAR-10 networks (Section 4.2).
"""

from __future__ import annotations

from torch import nn

from thornbed.tasks.models import check_norm, check_width, image_shape
from thornbed.tasks.models._normalisation import Norm
from thornbed.tasks.models._residual import ResidualNetwork

LARGEST_SMALL_SIDE = 64


def resnet18(
    sample_shape: tuple[int, ...],
    num_classes: int,
    *,
    norm: Norm = "batch",
    width: int = 64,
) -> nn.Module:
    """Return the network for images (C, H, W): 11.2 million parameters at ten classes.

    Four stages of two blocks with width, 2, 4 and 8 times width channels. Images of sides up to 64 enter through a 3x3
    convolution that keeps their size, larger ones through a 7x7 convolution and a pooling that divide it by four.
    norm="frozen" is batch norm that stays with the statistics it has. With norm="batch", a training batch needs two
    images where sides are at most 8: the last stage then sees one pixel. Raises ValueError for samples that are no
    images and for options out of range.
    """
    shape = image_shape("resnet18", sample_shape)
    check_norm("resnet18", norm)
    check_width("resnet18", "width", width)
    return ResidualNetwork(
        shape,
        num_classes,
        widths=(width, 2 * width, 4 * width, 8 * width),
        blocks_per_stage=2,
        norm=norm,
        small_images=max(shape[1:]) <= LARGEST_SMALL_SIDE,
    )
