"""C3D, the smaller variant with batch norm (thesis, section 5.2.3)."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup_cli.models.backbone import Backbone, Spec
from selfsup_cli.models.layers import Triple

_norm3d = partial(nn.BatchNorm3d, momentum=0.025, eps=1e-3)
_SPACE: Triple = (1, 2, 2)
_ALL: Triple = (2, 2, 2)


class C3D(Backbone):
    """Five convolutions of 3×3×3 and two fully connected layers, each with batch norm and ReLU.

    The fully connected layers fix the size of the input: clips of `frames` frames of `crop` pixels.
    """

    layers = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc1", "fc2")
    embedding = "conv5"

    def __init__(self, spec: Spec) -> None:
        c = [spec.channels(n) for n in (64, 128, 256, 256, 256)]
        hidden = spec.channels(2048)
        super().__init__(spec, out_features=hidden)
        size = (spec.frames, spec.crop, spec.crop)
        self.conv1 = _Convolution(3, c[0], pool=None)
        self.conv2 = _Convolution(c[0], c[1], pool=_SPACE)
        self.conv3 = _Convolution(c[1], c[2], pool=_ALL)
        self.conv4 = _Convolution(c[2], c[3], pool=_ALL)
        self.conv5 = _Convolution(c[3], c[4], pool=_ALL)
        cells = math.prod(math.ceil(n / d) for n, d in zip(size, (16, 32, 32), strict=True))
        self.fc1 = _FullyConnected(c[4] * cells, hidden, pool=_ALL)
        self.fc2 = _FullyConnected(hidden, hidden, pool=None)

    def arrange(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return x
        # A training step takes 0.7 to 0.8 of the time; the residual networks gain nothing.
        return x.contiguous(memory_format=torch.channels_last_3d)

    def init_weight(self, module: nn.Conv2d | nn.Conv3d | nn.Linear, g: torch.Generator) -> None:
        nn.init.xavier_uniform_(module.weight, generator=g)


def _pooling(size: Triple | None) -> nn.Module:
    # ceil_mode keeps the last pixel of an odd length, as padding SAME does.
    return nn.Identity() if size is None else nn.MaxPool3d(size, size, ceil_mode=True)


class _Convolution(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, pool: Triple | None) -> None:
        super().__init__()
        self.pool = _pooling(pool)
        self.conv = nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm = _norm3d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(self.pool(x))), inplace=True)


class _FullyConnected(nn.Module):
    def __init__(self, in_features: int, out_features: int, pool: Triple | None) -> None:
        super().__init__()
        self.pool = _pooling(pool)
        self.linear = nn.Linear(in_features, out_features, bias=False)
        self.norm = nn.BatchNorm1d(out_features, momentum=0.025, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(x).flatten(1)
        if x.shape[1] != self.linear.in_features:
            raise ValueError(
                f"a clip makes {x.shape[1]} values here instead of {self.linear.in_features}: c3d "
                "takes only clips of the length and crop it was built for"
            )
        return F.relu(self.norm(self.linear(x)), inplace=True)
