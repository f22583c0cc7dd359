"""The layer after a convolution: batch norm, batch norm that stays as it is, or nothing."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

Norm = Literal["batch", "frozen", "none"]


class FrozenNorm(nn.modules.batchnorm._NormBase):
    """Batch norm that always uses its running statistics and never changes them, whatever its mode.

    Parameters and buffers carry batch norm's names, so weights of a network with the one load into the other.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, ...) -> the same."""
        assert self.running_mean is not None  # as _NormBase makes them unless told otherwise
        assert self.running_var is not None
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        wide = (-1, *[1] * (x.dim() - 2))
        return x * scale.view(wide) + (self.bias - self.running_mean * scale).view(wide)


def normalisation(channels: int, norm: str) -> nn.Module:
    """Return the layer after a convolution with so many channels; `norm` is "batch", "frozen" or "none"."""
    return {"batch": nn.BatchNorm2d, "frozen": FrozenNorm, "none": nn.Identity}[norm](channels)
