"""ResNet-20 for small images, of any width; four times as wide it is the ResNet20-4 of gradient inversion.

Paper: K. He, X. Zhang, S. Ren and J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, Section 4.2, with
1x1 convolutions as shortcuts where the shape changes (option B there). ResNet20-4: J. Geiping, H. Bauermeister,
H. Dröge and M. Moeller, "Inverting Gradients - How easy is it to break privacy in federated learning?", NeurIPS 2020.
"""

from __future__ import annotations

from torch import nn

from thornbed.tasks.models import check_initial, check_norm, check_width, image_shape
from thornbed.tasks.models._normalisation import Norm
from thornbed.tasks.models._residual import Initial, ResidualNetwork


def resnet20(
    sample_shape: tuple[int, ...],
    num_classes: int,
    *,
    norm: Norm = "batch",
    width: int = 16,
    initial: Initial = "he",
) -> nn.Module:
    """Return the network for images (C, H, W): 0.27 million parameters at ten classes, 4.3 million at width=64.

    Three stages of three blocks with width, 2 and 4 times width channels, 21 convolutions with the two of the
    shortcuts. Convolutions start from the normal weights of He et al., or with initial="torch" from the uniform ones of
    torch's layers, 0.4 times as large: signals then shrink from block to block. norm="frozen" is batch norm that stays
    with the statistics it has. With norm="batch", a training batch needs two images where sides are at most 4. Raises
    ValueError for samples that are no images and for options out of range.
    """
    shape = image_shape("resnet20", sample_shape)
    check_norm("resnet20", norm)
    check_width("resnet20", "width", width)
    check_initial("resnet20", initial)
    return ResidualNetwork(
        shape,
        num_classes,
        widths=(width, 2 * width, 4 * width),
        blocks_per_stage=3,
        norm=norm,
        small_images=True,
        initial=initial,
    )
