"""How the activations of a layer become one row of features."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Protocol

import torch.nn.functional as F
from torch import Tensor

from selfsup_cli.config.registry import PADDED
from selfsup_cli.models import Backbone

MOST = 9600
"""Features that are left of a map where a pooling keeps to the thesis' ≈ 9200: the most that its
poolings leave of the layers of AlexNet on 227 pixels (10²·96, 6²·256, 5²·384)."""

Padding = Literal["same", "valid"]
Windows = Mapping[str, tuple[int, Padding]]

WINDOWS: Windows = MappingProxyType(
    {
        "conv1": (6, "same"),
        "conv2": (4, "valid"),
        "conv3": (3, "same"),
        "conv4": (3, "same"),
        "conv5": (2, "valid"),
    }
)
"""Side and stride of the averages over AlexNet's layers on 64 pixels, and how borders are padded:
they leave 3²·96, 2²·256, 2²·384, 2²·384 and 2²·256 features."""


class Pooling(Protocol):
    """Averages activations and flattens them."""

    def __call__(self, layer: str, activation: Tensor) -> Tensor:
        """[B, C, …] → float32 [B, D]. Vectors [B, C] stay as they are."""
        ...

    def describe(self) -> str:
        """One phrase for a report and for the key of the cache."""
        ...


def pool(activation: Tensor, grid: int) -> Tensor:
    """Average [B, C, (T,) H, W] to at most `grid` cells along each axis and flatten: [B, C·cells].

    Vectors [B, C] (fully connected layers) stay as they are. Float32 out.
    """
    activation = activation.float()
    if activation.ndim == 2:
        return activation
    *time, height, width = (min(grid, length) for length in activation.shape[2:])
    if time:
        return F.adaptive_avg_pool3d(activation, (time[0], height, width)).flatten(1)
    return F.adaptive_avg_pool2d(activation, (height, width)).flatten(1)


@dataclass(frozen=True)
class Cells:
    """Averages over at most `grid` cells along each axis (see `pool`)."""

    grid: int
    axes: str = "time, height and width"

    def __call__(self, layer: str, activation: Tensor) -> Tensor:
        return pool(activation, self.grid)

    def describe(self) -> str:
        return f"mean over at most {self.grid} cells along {self.axes}"


@dataclass(frozen=True)
class Unpooled:
    """Maps [B, C, H, W] flattened as they are."""

    def __call__(self, layer: str, activation: Tensor) -> Tensor:
        return activation.float().flatten(1)

    def describe(self) -> str:
        return "none"


@dataclass(frozen=True)
class Windowed:
    """Averages over windows as wide as their stride, layer by layer.

    Padding "same" puts zeros around, which are not counted. Layers without a window are averaged
    like `AtMost`.
    """

    windows: Windows = field(default_factory=lambda: WINDOWS)

    def __call__(self, layer: str, activation: Tensor) -> Tensor:
        activation = activation.float()
        if layer not in self.windows or activation.ndim == 2:
            return AtMost()(layer, activation)
        side, padding = self.windows[layer]
        side = min(side, *activation.shape[2:]) if padding == "valid" else side
        return averaged(activation, side, padding).flatten(1)

    def describe(self) -> str:
        each = (f"{layer} {side} {pad.upper()}" for layer, (side, pad) in self.windows.items())
        return f"mean over windows as wide as their stride: {', '.join(each)}"


@dataclass(frozen=True)
class AtMost:
    """Averages maps [B, C, H, W] to the finest square grid of cells that leaves `most` features."""

    most: int = MOST

    def __call__(self, layer: str, activation: Tensor) -> Tensor:
        if activation.ndim == 2:
            return activation.float()
        return pool(activation, max(1, math.isqrt(self.most // activation.shape[1])))

    def describe(self) -> str:
        return f"mean over the finest square grid that leaves at most {self.most} features"


def averaged(x: Tensor, side: int, padding: Padding) -> Tensor:
    """[B, C, H, W] → means over windows of `side` pixels, `side` pixels apart.

    With padding "same", ⌈H / side⌉ of them: what lies outside is spread over both borders, the odd
    pixel below and to the right, and takes no part in the mean.
    """
    if padding == "valid":
        return F.avg_pool2d(x, side)
    height, width = x.shape[2:]
    over = [-(-length // side) * side - length for length in (width, height)]
    pads = [part for extra in over for part in (extra // 2, extra - extra // 2)]
    counted = F.avg_pool2d(F.pad(x.new_ones(1, 1, height, width), pads), side)
    return F.avg_pool2d(F.pad(x, pads), side) / counted


def of_thesis(backbone: Backbone) -> Pooling:
    """The pooling of section 4.4 for a network: its windows for AlexNet on 64 pixels, and features
    of similar size (≈ 9200) for every other network and size."""
    if backbone.arch in PADDED and backbone.input.crop == 64:
        return Windowed()
    return AtMost()
