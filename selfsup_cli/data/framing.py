"""Which part of an image is wanted, and in which size: what a batch needs to be one tensor."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import interpolate

MAX_PIXELS = 64_000_000


class UnscalableError(ValueError):
    """What an image would be scaled to is more than there is room for, or nothing."""


@dataclass(frozen=True)
class Region:
    """The rows and columns of an upright image to cut out, and the `size` (H, W) to scale them to,
    bilinearly or `cubic`.

    In pixels of the image.
    """

    top: int
    left: int
    height: int
    width: int
    size: tuple[int, int]
    cubic: bool = False


Framing = Callable[[int, int], Region]
Sizing = int | tuple[int, int] | Framing | None
Plan = Callable[[int, int, torch.Generator], Region]


def region_of(sizing: Sizing, height: int, width: int) -> Region:
    """What `sizing` makes of an upright image of `height`×`width` pixels.

    None keeps it as it is, a number scales the shorter side to it (the longer one in proportion,
    rounded down), (H, W) scales to just that, and a function says it all by itself. Raises
    `UnscalableError` for a size that nothing can hold, ValueError for a region outside of the
    image.
    """
    if sizing is None:
        return Region(0, 0, height, width, (height, width))
    if isinstance(sizing, int):
        shorter = min(height, width)
        scaled = (height * sizing // shorter, width * sizing // shorter)
        return _checked(Region(0, 0, height, width, scaled), height, width)
    if isinstance(sizing, tuple):
        return _checked(Region(0, 0, height, width, sizing), height, width)
    return _checked(sizing(height, width), height, width)


def _checked(region: Region, height: int, width: int) -> Region:
    inside = (
        0 <= region.top < region.top + region.height <= height
        and 0 <= region.left < region.left + region.width <= width
    )
    if not inside:
        raise ValueError(f"{region} is not inside of {height}×{width} pixels")
    if min(region.size) < 1 or math.prod(region.size) > MAX_PIXELS:
        rows, columns = region.size
        raise UnscalableError(f"{height}×{width} pixels cannot be scaled to {rows}×{columns}")
    return region


def framed(image: torch.Tensor, region: Region) -> torch.Tensor:
    """Cut `region` out of an image (uint8 `[3,H,W]`) and scale it, antialiased."""
    rows = slice(region.top, region.top + region.height)
    columns = slice(region.left, region.left + region.width)
    image = image[:, rows, columns]
    if tuple(image.shape[1:]) == region.size:
        return image
    mode = "bicubic" if region.cubic else "bilinear"
    return interpolate(image[None], region.size, mode=mode, antialias=True)[0]


@dataclass(frozen=True)
class Scaled:
    """The whole image, scaled to `size` (H, W), whatever that does to its proportions."""

    size: tuple[int, int]

    def __call__(self, height: int, width: int, source: torch.Generator) -> Region:
        return Region(0, 0, height, width, self.size)


@dataclass(frozen=True)
class Crop:
    """A crop of `size` (H, W) after the shorter side has been scaled to `shorter`.

    Without `shorter`, images keep their scale; those that are smaller than the crop are scaled up
    until it fits. The crop lies in the middle, or with `random` anywhere with equal probability.
    """

    size: tuple[int, int]
    shorter: int | None = None
    random: bool = False

    def __post_init__(self) -> None:
        if self.shorter is not None and max(self.size) > self.shorter:
            raise ValueError(f"a crop of {self.size} does not fit into {self.shorter} pixels")

    def __call__(self, height: int, width: int, source: torch.Generator) -> Region:
        if self.shorter is None:
            scale = max(1.0, self.size[0] / height, self.size[1] / width)
        else:
            scale = self.shorter / min(height, width)
        rows = min(height, max(1, round(self.size[0] / scale)))
        columns = min(width, max(1, round(self.size[1] / scale)))
        down, across = height - rows, width - columns
        if not self.random:
            return Region(down // 2, across // 2, rows, columns, self.size)
        drawn = torch.rand(2, generator=source, dtype=torch.float64).tolist()
        top, left = int(drawn[0] * (down + 1)), int(drawn[1] * (across + 1))
        return Region(top, left, rows, columns, self.size)


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random share of the area in a random aspect ratio, scaled to `size` (H, W).

    The share is uniform in `scale`, the ratio of width to height log-uniform in `ratio`. Where ten
    draws do not fit, it is the largest middle part whose ratio is allowed. A share `cubic` of them
    is scaled with a cubic kernel.
    """

    size: tuple[int, int]
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    cubic: float = 0.0
    TRIES = 10

    def __call__(self, height: int, width: int, source: torch.Generator) -> Region:
        draws = torch.rand(self.TRIES, 4, generator=source, dtype=torch.float64).tolist()
        cubic = self.cubic > 0 and float(torch.rand((), generator=source)) < self.cubic
        low, high = map(math.log, self.ratio)
        for share, form, down, across in draws:
            area = height * width * (self.scale[0] + share * (self.scale[1] - self.scale[0]))
            aspect = math.exp(low + form * (high - low))
            rows, columns = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
            if 0 < rows <= height and 0 < columns <= width:
                top, left = int(down * (height - rows + 1)), int(across * (width - columns + 1))
                return Region(top, left, rows, columns, self.size, cubic)
        rows = min(height, max(1, round(width / self.ratio[0])))
        columns = min(width, max(1, round(height * self.ratio[1])))
        top, left = (height - rows) // 2, (width - columns) // 2
        return Region(top, left, rows, columns, self.size, cubic)
