"""Convolutions that the networks of the thesis share, and how weights start."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Triple = tuple[int, int, int]


def truncated_normal(weight: Tensor, sigma: float, generator: torch.Generator | None) -> None:
    """Fill `weight` from a normal distribution of that σ, cut at two of them."""
    nn.init.trunc_normal_(weight, std=sigma, a=-2 * sigma, b=2 * sigma, generator=generator)


def _zeros(x: Tensor, kernel: Iterable[int], stride: Iterable[int]) -> list[int]:
    """How many zeros padding SAME puts around `x` in each direction, both ends together."""
    return [
        max((-(-size // step) - 1) * step + length - size, 0)
        for size, length, step in zip(x.shape[2:], kernel, stride, strict=True)
    ]


class ImageNetColours(nn.Module):
    """Images in [-1, 1] → what networks for ImageNet expect: its mean colour is 0, its spread 1.

    It has no values of its own: they are no part of what is trained or saved.
    """

    MEAN = (0.485, 0.456, 0.406)
    STD = (0.229, 0.224, 0.225)

    def forward(self, x: Tensor) -> Tensor:
        """float `[B, 3, …]` → the same shape."""
        shape = (1, 3, *(1 for _ in x.shape[2:]))
        scale = x.new_tensor([0.5 / std for std in self.STD]).view(shape)
        shift = [(0.5 - mean) / std for mean, std in zip(self.MEAN, self.STD, strict=True)]
        return x * scale + x.new_tensor(shift).view(shape)


class SameConv2d(nn.Conv2d):
    """A convolution whose output has ⌈size / stride⌉ pixels in each direction; see `SameConv3d`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        *,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, groups=groups, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` → `[B, out_channels, ⌈H / s⌉, ⌈W / s⌉]`."""
        zeros = _zeros(x, self.kernel_size, self.stride)
        if any(count % 2 for count in zeros):
            h, w = (count % 2 for count in zeros)
            x = F.pad(x, (0, w, 0, h))
        padding = [count // 2 for count in zeros]
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, groups=self.groups)


class Scalable(nn.Module):
    """f(x) = s·g(x / s) for some g, with the number s ("scale") that layers before it were scaled
    by: scaled inputs then give outputs that are scaled as much."""

    def __init__(self) -> None:
        super().__init__()
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(()))

    def reset_parameters(self) -> None:
        """s = 1."""
        nn.init.ones_(self.scale)


class SameMaxPool2d(nn.Module):
    """Maxima of 3×3 pixels at stride 2, `[B, C, H, W]` → `[B, C, ⌈H / 2⌉, ⌈W / 2⌉]`.

    An even size has nothing before it and one row too few at its end, an odd one a row on each side
    (padding SAME of the author's framework).
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 2, [size % 2 for size in x.shape[2:]], ceil_mode=True)


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
        zeros = _zeros(x, self.kernel_size, self.stride)
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
