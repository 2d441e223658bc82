"""Convolutions that the networks of the thesis share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

Triple = tuple[int, int, int]


class SameConv3d(nn.Conv3d):
    """A convolution whose output has ⌈size / stride⌉ pixels in each direction.

    Where the zeros around the input cannot be split evenly, the extra one goes to the end (later,
    below, right), as in the author's framework; symmetric padding would shift the grid.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Triple,
        stride: Triple = (1, 1, 1),
        *,
        bias: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, T, H, W]` → `[B, out_channels, ⌈T / s⌉, ⌈H / s⌉, ⌈W / s⌉]`."""
        zeros = [
            max((-(-size // stride) - 1) * stride + kernel - size, 0)
            for size, kernel, stride in zip(x.shape[2:], self.kernel_size, self.stride, strict=True)
        ]
        if any(count % 2 for count in zeros):
            t, h, w = (count % 2 for count in zeros)
            x = F.pad(x, (0, w, 0, h, 0, t))
        padding = [count // 2 for count in zeros]
        return F.conv3d(x, self.weight, self.bias, self.stride, padding)


class TemporalConv3d(SameConv3d):
    """A convolution along time alone, with bias, that starts as the identity."""

    def __init__(self, channels: int, length: int, stride: int) -> None:
        super().__init__(channels, channels, (length, 1, 1), (stride, 1, 1), bias=True)


class FactorizedConv3d(nn.Module):
    """A convolution in space, ReLU, and one along time at the same width (thesis' R(2+1)D)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: Triple, stride: Triple = (1, 1, 1)
    ) -> None:
        super().__init__()
        (kt, kh, kw), (st, sh, sw) = kernel, stride
        self.spatial = SameConv3d(in_channels, out_channels, (1, kh, kw), (1, sh, sw))
        self.temporal = TemporalConv3d(out_channels, kt, st)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as `SameConv3d`."""
        out: Tensor = self.temporal(F.relu(self.spatial(x), inplace=True))
        return out
