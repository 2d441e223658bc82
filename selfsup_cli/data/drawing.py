"""What all rendered data is drawn with."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from selfsup_cli.randomness import generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]


_ZERO, _HALF, _ONE = (np.float32(value) for value in (0.0, 0.5, 1.0))
_MIDDLES = np.arange(512, dtype=np.float32) + _HALF  # of pixels


def balanced(classes: int, index: int, seed: int, *address: int | str) -> int:
    """Class of sample `index`: each run of as many samples as there are classes has every class."""
    block, place = divmod(index, classes)
    return int(torch.randperm(classes, generator=generator(seed, *address, block))[place])


class Draws:
    """Numbers drawn one after the other for one sample."""

    def __init__(self, source: torch.Generator, count: int) -> None:
        self._values = iter(torch.rand(count, generator=source, dtype=torch.float64).tolist())

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(next(self._values))

    def color(self, low: float, high: float) -> Floats:
        """Float32 `[3, 1, 1, 1]`."""
        values = [self.between(low, high) for _ in range(3)]
        return np.asarray(values, np.float32).reshape(3, 1, 1, 1)


def clouds(source: torch.Generator, scales: Iterable[tuple[int, float]], side: int) -> Floats:
    """Smooth noise around 0, seamless at the edges, float32 `[3, side, side]`.

    Of each scale (cells a side, strength) it has values from -strength to strength.
    """
    picture = np.zeros((3, side, side), np.float32)
    for cells, strength in scales:
        values = torch.rand((3, cells, cells), generator=source).numpy() * 2 - 1
        weights = _interpolation(cells, side)
        picture += np.float32(strength) * (weights @ values @ weights.T)
    return picture


@lru_cache(maxsize=16)
def _interpolation(cells: int, side: int) -> Floats:
    """Weights `[side, cells]` that interpolate `cells` values on a ring smoothly."""
    place = np.arange(side) * cells / side
    cell = np.floor(place).astype(np.int64)
    part = place - cell
    weight = part * part * (3 - 2 * part)
    weights = np.zeros((side, cells), np.float32)
    weights[np.arange(side), cell % cells] += 1 - weight
    weights[np.arange(side), (cell + 1) % cells] += weight
    return weights


@lru_cache(maxsize=4)
def grain(level: float) -> Floats:
    """Gaussian noise of `level` grey levels, with the half level that rounding to uint8 asks for.

    2²¹ values, to take a stretch of.
    """
    noise = torch.randn(1 << 21, generator=generator(0, "motion", "grain")).numpy()
    return np.asarray(np.round(level * noise) + 0.5, np.float32)


class Canvas:
    """An image, float32 `[3, side, side]` in grey levels, to draw on.

    Shapes are given by their centre (x, y), half their extent along their own axes and the angle by
    which they are turned, all in pixels and radians. Their paint is a colour and the contrast of a
    grating (both float32 `[3, 1, 1]`), its frequency in radians a pixel, direction and phase. Edges
    are as wide as a pixel.
    """

    def __init__(self, picture: Floats) -> None:
        self.picture = np.asarray(picture, np.float32)
        self.side = picture.shape[-1]

    def ellipse(
        self, x: float, y: float, along: float, across: float, angle: float, *paint: Any
    ) -> None:
        """An ellipse with the half axes `along` and `across`."""
        window = self._window(x, y, max(along, across))
        if window is not None:
            u, v = _turned(window, x, y, angle)
            inside = 1 - np.sqrt(
                (u * np.float32(1 / along)) ** 2 + (v * np.float32(1 / across)) ** 2
            )
            self._paint(window, inside * np.float32(min(along, across)), u, v, *paint)

    def bar(
        self, x: float, y: float, along: float, across: float, angle: float, *paint: Any
    ) -> None:
        """A rectangle of twice `along` by twice `across`."""
        window = self._window(x, y, math.hypot(along, across))
        if window is not None:
            u, v = _turned(window, x, y, angle)
            inside = np.minimum(np.float32(along) - np.abs(u), np.float32(across) - np.abs(v))
            self._paint(window, inside, u, v, *paint)

    def wedge(self, x: float, y: float, reach: float, angle: float, *paint: Any) -> None:
        """An equilateral triangle whose corners are `reach` away from its centre."""
        window = self._window(x, y, reach)
        if window is not None:
            u, v = _turned(window, x, y, angle)
            slanted = np.float32(math.sqrt(0.75)) * np.abs(u) - np.float32(0.5) * v
            inside = np.float32(reach / 2) - np.maximum(slanted, v)
            self._paint(window, inside, u, v, *paint)

    def finished(self, noise: Floats, key: int) -> NDArray[np.uint8]:
        """The image as uint8, with a stretch of `noise` that `key` chooses laid over it."""
        size = self.picture.size
        start = key % (len(noise) - size)
        picture = self.picture + noise[start : start + size].reshape(self.picture.shape)
        return np.clip(picture, 0.0, 255.0, out=picture).astype(np.uint8)

    def _window(self, x: float, y: float, reach: float) -> tuple[int, int, int, int] | None:
        """First and last row and column that a shape can touch; None if there are none."""
        reach += 1
        top, bottom = max(0, math.floor(y - reach)), min(self.side, math.ceil(y + reach))
        left, right = max(0, math.floor(x - reach)), min(self.side, math.ceil(x + reach))
        return (top, bottom, left, right) if top < bottom and left < right else None

    def _paint(
        self,
        window: tuple[int, int, int, int],
        inside: Floats,
        u: Floats,
        v: Floats,
        color: Floats,
        contrast: Floats | None = None,
        frequency: float = 0.0,
        direction: float = 0.0,
        phase: float = 0.0,
    ) -> None:
        """Paint where `inside` (distance to the edge in pixels) is positive."""
        top, bottom, left, right = window
        alpha = np.maximum(np.minimum(inside + _HALF, _ONE), _ZERO)  # quicker than np.clip
        if contrast is not None:
            a = np.float32(frequency * math.cos(direction))
            b = np.float32(frequency * math.sin(direction))
            color = color + contrast * np.sin(a * u + b * v + np.float32(phase))
        there = self.picture[:, top:bottom, left:right]
        there += alpha * (color - there)


class TracedCanvas(Canvas):
    """A canvas that knows which pixels shapes cover by more than half: `covered`, bool
    `[side, side]`."""

    def __init__(self, picture: Floats) -> None:
        super().__init__(picture)
        self.covered: NDArray[np.bool_] = np.zeros((self.side, self.side), bool)

    def _paint(
        self, window: tuple[int, int, int, int], inside: Floats, *rest: Any, **paint: Any
    ) -> None:
        top, bottom, left, right = window
        self.covered[top:bottom, left:right] |= inside > 0
        super()._paint(window, inside, *rest, **paint)


def _turned(
    window: tuple[int, int, int, int], x: float, y: float, angle: float
) -> tuple[Floats, Floats]:
    """Offsets of the pixels of a window from (x, y), along the axes of what is turned."""
    top, bottom, left, right = window
    across = _MIDDLES[left:right] - np.float32(x)
    down = _MIDDLES[top:bottom, None] - np.float32(y)
    if not angle:
        return across, down
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return cos * across + sin * down, cos * down - sin * across
