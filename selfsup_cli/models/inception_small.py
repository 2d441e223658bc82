"""A small Inception for images of CIFAR's size, of chapter 8 (thesis, section 8.4)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup_cli.models.alexnet_artifacts import ShiftNorm2d
from selfsup_cli.models.backbone import Backbone, Spec
from selfsup_cli.models.cifarnet import standardized
from selfsup_cli.models.layers import SameConv2d, SameMaxPool2d, truncated_normal

# What cutting a normal distribution at 2σ takes off its variance is given back.
_HE = 2 * 1.3


class InceptionSmall(Backbone):
    """A convolution and eight blocks of two branches, with two halvings between them.

    `conv1` is not padded; `stage1` has two blocks, `stage2` a halving and four, `stage3` a halving
    and two. Every convolution has batch norm with β alone, and ReLU. Images are standardised one by
    one, and may have any size; the thesis' are 29×29 pixels out of 32. Its dropout of one half
    before the classifier is the head's.
    """

    layers = ("conv1", "stage1", "stage2", "stage3")
    embedding = "stage3"

    def __init__(self, spec: Spec) -> None:
        c = spec.channels
        super().__init__(spec, out_features=c(176) + c(160))
        self.conv1 = _Convolution(nn.Conv2d(3, c(96), 3, bias=False))
        self.stage1 = _stage(c(96), None, [(c(32), c(32)), (c(32), c(48))])
        pairs = [(c(112), c(48)), (c(96), c(64)), (c(80), c(80)), (c(48), c(96))]
        self.stage2 = _stage(c(32) + c(48), c(80), pairs)
        self.stage3 = _stage(c(48) + c(96), c(96), [(c(176), c(160))] * 2)

    def arrange(self, x: Tensor) -> Tensor:
        return standardized(x)

    def summarize(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))

    def init_weight(self, module: nn.Conv2d | nn.Conv3d | nn.Linear, g: torch.Generator) -> None:
        fan_in = module.weight[0].numel()
        truncated_normal(module.weight, math.sqrt(_HE / fan_in), g)


def _stage(channels: int, halved: int | None, pairs: list[tuple[int, int]]) -> nn.Sequential:
    """An optional halving that adds `halved` channels, and blocks of 1×1 and 3×3 channels."""
    blocks: list[nn.Module] = []
    if halved is not None:
        blocks.append(_Halving(channels, halved))
        channels += halved
    for narrow, wide in pairs:
        blocks.append(_Block(channels, narrow, wide))
        channels = narrow + wide
    return nn.Sequential(*blocks)


class _Convolution(nn.Module):
    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.norm = ShiftNorm2d(conv.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)), inplace=True)


class _Block(nn.Module):
    """1×1 beside 3×3."""

    def __init__(self, channels: int, narrow: int, wide: int) -> None:
        super().__init__()
        self.narrow = _Convolution(nn.Conv2d(channels, narrow, 1, bias=False))
        self.wide = _Convolution(SameConv2d(channels, wide, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.narrow(x), self.wide(x)], 1)


class _Halving(nn.Module):
    """3×3 at stride 2 beside maxima of the same cells."""

    def __init__(self, channels: int, more: int) -> None:
        super().__init__()
        self.wide = _Convolution(SameConv2d(channels, more, 3, 2))
        self.pool = SameMaxPool2d()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.wide(x), self.pool(x)], 1)
