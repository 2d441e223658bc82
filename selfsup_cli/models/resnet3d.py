"""The residual networks of chapter 5: 2D3D-ResNet-18 and R(2+1)D-18."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup_cli.models.backbone import Backbone, Spec
from selfsup_cli.models.layers import FactorizedConv3d, SameConv3d, TemporalConv3d, Triple

_norm3d = partial(nn.BatchNorm3d, momentum=0.003, eps=1e-5)
_ONE: Triple = (1, 1, 1)

Convolution = Callable[[int, int, Triple, Triple], nn.Module]

# The convolution, its kernel in the stem (stride 1, 2, 2), and kernel and stride of each stage.
_DESIGNS: dict[str, tuple[Convolution, Triple, list[tuple[Triple, Triple]]]] = {
    "r3d": (
        SameConv3d,
        (1, 7, 7),
        [
            ((1, 3, 3), (1, 1, 1)),
            ((1, 3, 3), (1, 2, 2)),
            ((3, 3, 3), (2, 2, 2)),
            ((3, 3, 3), (2, 2, 2)),
        ],
    ),
    "r2plus1d": (
        FactorizedConv3d,
        (3, 7, 7),
        [
            ((3, 3, 3), (1, 1, 1)),
            ((3, 3, 3), (2, 2, 2)),
            ((3, 3, 3), (2, 2, 2)),
            ((3, 3, 3), (2, 2, 2)),
        ],
    ),
}


class ResNet3D(Backbone):
    """A stem, four stages of two basic blocks, and the mean over time and space.

    With `shortcut="standard"` a block adds its input as it is where the shapes agree, and through a
    1×1×1 convolution with batch norm elsewhere; with `"projected"` always through the convolution,
    as the author's code did.
    """

    layers = ("stem", "layer1", "layer2", "layer3", "layer4")
    embedding = "layer4"

    def __init__(self, spec: Spec) -> None:
        widths = [spec.channels(n) for n in (64, 128, 256, 512)]
        super().__init__(spec, out_features=widths[-1])
        convolution, kernel, stages = _DESIGNS[spec.arch]
        self.stem = _Stem(convolution(3, widths[0], kernel, (1, 2, 2)), widths[0])
        projected = spec.shortcut == "projected"
        inside = widths[0]
        for number, (outside, (kernel, stride)) in enumerate(zip(widths, stages, strict=True), 1):
            blocks: list[nn.Module] = [
                _Block(convolution, inside, outside, kernel, stride, projected),
                _Block(convolution, outside, outside, kernel, _ONE, projected),
            ]
            if number == 1 and spec.arch == "r3d":
                # No padding here: 64 pixels become 31.
                blocks.insert(0, nn.MaxPool3d((1, 3, 3), (1, 2, 2)))
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            inside = outside
        self.norm = (
            nn.BatchNorm1d(widths[-1], momentum=0.003, eps=1e-5)
            if spec.arch == "r2plus1d"
            else nn.Identity()
        )

    def summarize(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x.mean((2, 3, 4)))
        return out

    def init_weight(self, module: nn.Conv2d | nn.Conv3d | nn.Linear, g: torch.Generator) -> None:
        if isinstance(module, TemporalConv3d):
            nn.init.dirac_(module.weight)
        else:
            nn.init.xavier_uniform_(module.weight, generator=g)


class _Stem(nn.Module):
    def __init__(self, conv: nn.Module, channels: int) -> None:
        super().__init__()
        self.conv = conv
        self.norm = _norm3d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)), inplace=True)


class _Block(nn.Module):
    def __init__(
        self,
        convolution: Convolution,
        inside: int,
        outside: int,
        kernel: Triple,
        stride: Triple,
        projected: bool,
    ) -> None:
        super().__init__()
        self.conv1 = convolution(inside, outside, kernel, stride)
        self.norm1 = _norm3d(outside)
        self.conv2 = convolution(outside, outside, kernel, _ONE)
        self.norm2 = _norm3d(outside)
        self.shortcut: nn.Module = nn.Identity()
        if projected or inside != outside or stride != _ONE:
            self.shortcut = nn.Sequential(
                SameConv3d(inside, outside, _ONE, stride), _norm3d(outside)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        return F.relu(y + self.shortcut(x), inplace=True)
