"""Residual networks of two-convolution blocks, with batch norm, frozen or not, or without any normalisation.

Paper: K. He, X. Zhang, S. Ren and J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016. Parts carry
torchvision's names (conv1, bn1, layer1.0.conv1, ..., fc), so weights of its resnet18 load into ours.

Without batch norm, convolutions have a bias, and what a branch adds to its shortcut is multiplied by the constant
1 / sqrt(number of blocks): S. Hayou, E. Clerico, B. He, G. Deligiannidis, A. Doucet and J. Rousseau, "Stable ResNet",
AISTATS 2021. It bounds activations and gradients whatever the depth. Scaling only the first weights (H. Zhang,
Y. Dauphin and T. Ma, "Fixup Initialization", ICLR 2019) and a factor that is learned (S. De and S. Smith, "Batch
Normalization Biases Residual Blocks Towards the Identity Function in Deep Networks", NeurIPS 2020) were tried as well,
with momentum 0.9 on 64 digits, eight starts each. The loss of the first jumped above 5 from learning rate 0.01 on, that
of the second from 0.02 on, and to infinity at 0.05; with the constant it was smooth at 0.01, jumped in one start at
0.02 and in most at 0.05. Both papers also begin at zero, where the first convolution of a branch gets no gradient, and
gradients of untrained networks are what inversion attacks read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from thornbed.tasks.models._normalisation import normalisation

Initial = Literal["he", "torch"]
"""How convolutions start: normal by their fan as He et al. have it, or uniform as torch's layers have it."""


class Scale(nn.Module):
    """Multiplication by a constant; it has no parameters."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same."""
        return self.factor * x


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes.

    `branch_scale` is what the branch is multiplied by where there is no batch norm.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, norm: str, branch_scale: float) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, channels, kernel=3, stride=stride, norm=norm)
        self.bn1 = normalisation(channels, norm)
        self.conv2 = convolution(channels, channels, kernel=3, stride=1, norm=norm)
        self.bn2 = Scale(branch_scale) if norm == "none" else normalisation(channels, norm)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            shortcut = convolution(in_channels, channels, kernel=1, stride=stride, norm=norm)
            self.downsample = nn.Sequential(shortcut, normalisation(channels, norm))

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, channels, h / stride, w / stride), rounded up."""
        branch = torch.relu(self.bn1(self.conv1(x)))
        branch = self.bn2(self.conv2(branch))
        return torch.relu(branch + self.downsample(x))


class ResidualNetwork(nn.Module):
    """A stem, stages of `blocks_per_stage` blocks that halve the image from the second on, the mean, a linear layer.

    `widths` are the channels of the stages. The stem for small images keeps their size; the other divides it by four.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        *,
        widths: Sequence[int],
        blocks_per_stage: int,
        norm: str,
        small_images: bool,
        initial: Initial = "he",
    ) -> None:
        super().__init__()
        self.conv1 = convolution(
            image_shape[0], widths[0], kernel=3 if small_images else 7, stride=1 if small_images else 2, norm=norm
        )
        self.bn1 = normalisation(widths[0], norm)
        self.maxpool = nn.Identity() if small_images else nn.MaxPool2d(3, stride=2, padding=1)
        branch_scale = 1 / math.sqrt(len(widths) * blocks_per_stage)
        stage_names = []
        in_channels = widths[0]
        for stage, channels in enumerate(widths, start=1):
            blocks = []
            for block in range(blocks_per_stage):
                stride = 2 if stage > 1 and block == 0 else 1
                blocks.append(ResidualBlock(in_channels, channels, stride, norm, branch_scale))
                in_channels = channels
            stage_names.append(f"layer{stage}")
            self.add_module(stage_names[-1], nn.Sequential(*blocks))
        self._stage_names = tuple(stage_names)
        self.fc = nn.Linear(in_channels, num_classes)
        if initial == "he":
            self._initialise(norm)

    def _initialise(self, norm: str) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # Of the two modes only fan_in keeps the size of the signal where a layer has more channels than the one
                # before, as the first has; behind batch norm that size means nothing.
                mode: Literal["fan_in", "fan_out"] = "fan_in" if norm == "none" else "fan_out"
                nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, H, W) -> logits (n, num_classes)."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for name in self._stage_names:
            x = self.get_submodule(name)(x)
        return self.fc(x.mean(dim=(2, 3)))


def convolution(in_channels: int, channels: int, *, kernel: int, stride: int, norm: str) -> nn.Conv2d:
    """Return a convolution that keeps the size up to its stride; batch norm has a bias of its own, so it needs none."""
    return nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=norm == "none")
