"""What should not suffice to recognise a transformation, and small networks that try all the same.

Each probe is shown a local cue of a crop and nothing else: what it gets right, it gets right
without having seen the image (thesis, sections 4.2.4 and 4.3). Crops are float `[N, 3, C, C]` in
[-1, 1].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup_cli.config.shortcuts import LocalProbes
from selfsup_cli.transforms.images import crop, random_corners

PHASES = 8
"""Pixels from one edge to the next of the blocks that JPEG cuts images into."""
_FLOOR = 1e-3
_GAIN = 4.0


class LocalProbe(nn.Module):
    """A cue and a small classifier of it.

    `title` is what the cue is called, `remedy` what a person can do about a shortcut that it shows,
    where that is the same for all transformations.
    `see` gives what the classifier is fed, `views` answers for each crop: all crops through the
    first view, then all through the second, and so on.
    """

    title: str
    remedy = ""
    views = 1
    lr = 3e-3

    def see(self, crops: Tensor, g: torch.Generator) -> Tensor:
        """The cue, of crops float `[N, 3, C, C]`: `[views · N, …]`."""
        raise NotImplementedError


class PatchProbe(LocalProbe):
    """One patch, taken from anywhere in the crop."""

    views = 2

    def __init__(self, kinds: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.title = f"{_article(side)} {side}×{side} patch"
        self.network = nn.Sequential(
            *_convolution(3, 16, 3, 1), *_convolution(16, 32, 3, 2), *_convolution(32, 64, 3, 2),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, kinds),
        )  # fmt: skip

    def see(self, crops: Tensor, g: torch.Generator) -> Tensor:
        crops = crops.repeat(self.views, 1, 1, 1)
        high, wide = crops.shape[2:]
        corners = random_corners(len(crops), (high, wide), self.side, g)
        return crop(crops, corners, self.side)

    def forward(self, seen: Tensor) -> Tensor:
        out: Tensor = self.network(seen)
        return out


class FrameProbe(LocalProbe):
    """The pixels along the border of the crop."""

    def __init__(self, kinds: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.title = f"a frame {width} pixel{'s' if width > 1 else ''} wide"
        self.network = nn.Sequential(
            nn.Conv2d(12, 32, (width, 5), padding=(0, 2), bias=False), *_active(32),
            nn.Conv2d(32, 64, (1, 5), (1, 2), padding=(0, 2), bias=False), *_active(64),
        )  # fmt: skip
        self.head = nn.Linear(128, kinds)

    def see(self, crops: Tensor, g: torch.Generator) -> Tensor:
        """Its four sides `[N, 12, width, C]`, the outermost pixels first."""
        w = self.width
        sides = [crops[..., :w, :], crops.flip(-2)[..., :w, :]]
        sides += [crops.transpose(-2, -1)[..., :w, :], crops.flip(-1).transpose(-2, -1)[..., :w, :]]
        return torch.cat(sides, 1)

    def forward(self, seen: Tensor) -> Tensor:
        out: Tensor = self.head(_pooled(self.network(seen)))
        return out


class ResidualProbe(LocalProbe):
    """What a blur takes away, judged 9 pixels at a time."""

    title = "the high-frequency residual"
    blur: Tensor

    def __init__(self, kinds: int) -> None:
        super().__init__()
        line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
        self.register_buffer("blur", torch.outer(line, line).expand(3, 1, 5, 5).clone())
        self.network = nn.Sequential(*_convolution(3, 16, 3, 2), *_convolution(16, 32, 2, 1))
        self.head = nn.Linear(64, kinds)

    def see(self, crops: Tensor, g: torch.Generator) -> Tensor:
        """`[N, 3, C − 4, C − 4]`: beyond the crop there is nothing to blur with."""
        return _GAIN * (crops[..., 2:-2, 2:-2] - F.conv2d(crops, self.blur, groups=3))

    def forward(self, seen: Tensor) -> Tensor:
        out: Tensor = self.head(_pooled(self.network(seen)))
        return out


class GridProbe(LocalProbe):
    """How much neighbouring pixels differ at each phase of JPEG's grid of blocks; linear."""

    title = "the JPEG grid"
    remedy = (
        "the blocks of compressed images show it; scale images down before they are cropped "
        "(framing.shorter), so that the blocks vanish"
    )
    lr = 1e-2

    def __init__(self, kinds: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4 * PHASES, affine=False)
        self.head = nn.Linear(4 * PHASES, kinds)

    def see(self, crops: Tensor, g: torch.Generator) -> Tensor:
        """`[N, 32]`, see `blockiness`."""
        return blockiness(crops)

    def forward(self, seen: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(seen))
        return out


def blockiness(crops: Tensor) -> Tensor:
    """How much neighbours differ at each of 8 phases: `[N, 32]`.

    Of each column of edges the mean absolute difference is taken, of those 8 pixels apart the
    median. From column to column, then from row to row, each as logarithms of shares of their mean,
    first by phase and then by size, as the grid may begin anywhere. How sharp a crop is does not
    count.
    """
    grey = crops.mean(1)
    found = []
    for axis in (2, 1):
        steps = grey.diff(dim=axis).abs().mean(3 - axis)
        # The median: edges of blocks are everywhere, those of an object or of the crop once.
        by_phase = torch.stack([steps[:, p::PHASES].median(1).values for p in range(PHASES)], 1)
        shares = ((by_phase + _FLOOR) / (by_phase.mean(1, keepdim=True) + _FLOOR)).log()
        found += [shares, shares.sort(1, descending=True).values]
    return torch.cat(found, 1)


def local_probes(kinds: int, crop: int, settings: LocalProbes) -> list[LocalProbe]:
    """A probe for each cue; patch and frame are cut down to what is local in a crop."""
    return [
        PatchProbe(kinds, max(4, min(settings.patch, crop // 2))),
        FrameProbe(kinds, max(1, min(settings.border, crop // 8))),
        ResidualProbe(kinds),
        GridProbe(kinds),
    ]


def _convolution(inside: int, outside: int, side: int, stride: int) -> list[nn.Module]:
    padding = side // 2 if side % 2 else 0
    return [
        nn.Conv2d(inside, outside, side, stride, padding=padding, bias=False),
        *_active(outside),
    ]


def _active(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU()]


def _pooled(maps: Tensor) -> Tensor:
    """What is there on average, and the strongest of it anywhere: `[N, 2 · channels]`."""
    return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)


def _article(number: int) -> str:
    return "an" if str(number)[0] == "8" or number in (11, 18) else "a"
