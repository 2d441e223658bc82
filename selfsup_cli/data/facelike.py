"""Built-in images whose every patch says where up is (`facelike`).

Faces, all of them alike in where things are, lit from the same side: the thesis' example of data on
which rotations can be told without looking at more than a corner (section 4.4, figure 4.5). The
light falls from the upper left on skin, clothes and background alike, and every little bump is
brighter on its lit side. Eight attributes, each of them there in half of the images and independent
of all others, say what a representation knows of the face.

Every image is a pure function of (seed, part of the data, index).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from selfsup_cli.data.drawing import Canvas, Draws, clouds, grain
from selfsup_cli.randomness import derive, generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

VERSION = 1  # part of the fingerprint: raise it with any change of what is rendered

ATTRIBUTES = (
    *("beard", "glasses", "hat", "long_hair", "narrow_face", "open_mouth", "raised_brows"),
    "smiling",
)
LIGHT = 34.0  # grey levels by which the lit edge is brighter than the middle
BUMP = 42.0  # and by which the lit side of a bump is brighter than what is around it, at most
BUMPS = 200  # on 64×64 pixels
GRAIN = 5.0  # standard deviation, in grey levels
_DRAWS = 64
_CLOUDS = ((3, 16.0), (6, 10.0))  # cells, grey levels


def attributes_of(seed: int, part: str, index: int) -> NDArray[np.uint8]:
    """Which attributes an image has, uint8 `[A]`."""
    bits = derive(seed, "facelike", part, index, "attributes")
    return np.array([bits >> shift & 1 for shift in range(len(ATTRIBUTES))], np.uint8)


def render(seed: int, part: str, index: int, side: int) -> NDArray[np.uint8]:
    """An image as uint8 `[3, side, side]`."""
    has = dict(zip(ATTRIBUTES, attributes_of(seed, part, index).tolist(), strict=True))
    source = generator(seed, "facelike", part, index)
    draw = Draws(source, _DRAWS)
    canvas = Canvas(clouds(source, _CLOUDS, side) + _color(draw, 70.0, 185.0, 30.0))
    pixels = side / 64.0
    x, y = (side / 2 + pixels * draw.between(-1.5, 1.5) for _ in range(2))
    y += 2.0 * pixels
    _draw(canvas, draw, has, x, y, pixels)
    canvas.picture += _light(side)
    canvas.picture += _bumps(source, side)
    return canvas.finished(grain(GRAIN), derive(seed, "facelike", part, index, "grain"))


def _draw(
    canvas: Canvas, draw: Draws, has: dict[str, int], x: float, y: float, pixels: float
) -> None:
    """The person, with the middle of the face at (x, y)."""
    skin, hair, cloth = (_color(draw, *levels) for levels in _LEVELS)
    width = pixels * draw.between(-0.8, 0.8) + pixels * (14.0 if has["narrow_face"] else 18.0)
    height = pixels * draw.between(20.5, 22.0)

    def oval(dx: float, dy: float, along: float, across: float, color: Floats) -> None:
        canvas.ellipse(
            x + dx * pixels, y + dy * pixels, along * pixels, across * pixels, 0.0, color
        )

    def bar(dx: float, dy: float, along: float, across: float, angle: float, color: Floats) -> None:
        canvas.bar(x + dx * pixels, y + dy * pixels, along * pixels, across * pixels, angle, color)

    oval(0.0, 36.0, 27.0, 15.0, cloth)
    wide = width / pixels
    if has["long_hair"]:
        oval(0.0, 4.0, wide + 5.0, 27.0, hair)
    oval(0.0, -6.0, wide + 2.5, 19.5, hair)
    bar(0.0, 22.0, 6.0, 6.0, 0.0, 0.85 * skin)
    canvas.ellipse(x, y, width, height, 0.0, skin)
    if has["beard"]:
        oval(0.0, 14.5, 0.62 * wide, 7.0, 0.8 * hair)
    if has["hat"]:
        bar(0.0, -19.0, wide + 2.0, 6.5, 0.0, cloth)
        bar(0.0, -13.5, wide + 6.0, 1.8, 0.0, 0.8 * cloth)

    apart = 0.42 * wide + draw.between(-0.4, 0.4)
    brow = -9.8 if has["raised_brows"] else -7.0
    for one in (-1.0, 1.0):
        oval(one * apart, -3.0, 3.6, 2.2, np.full((3, 1, 1), 225.0, np.float32))
        oval(one * apart, -3.0, 1.7, 1.9, 0.35 * hair)
        bar(one * apart, brow, 4.0, 0.9, one * 0.12, 0.6 * hair)
        if has["glasses"]:
            for edge in (-3.4, 3.4):
                bar(one * apart, -3.0 + edge, 5.2, 0.7, 0.0, _DARK)
                bar(one * apart + 1.4 * edge, -3.0, 0.7, 4.0, 0.0, _DARK)
    bar(0.0, 3.2, 1.1, 4.2, 0.0, 0.8 * skin)
    lips = _color(draw, 90.0, 130.0, 0.0) * np.array([[[1.3]], [[0.7]], [[0.75]]], np.float32)
    _draw_mouth(bar, oval, lips, has, 0.38 * wide)


def _draw_mouth(bar: Any, oval: Any, lips: Floats, has: dict[str, int], reach: float) -> None:
    """Two halves that rise to the sides or do not, and what is between them."""
    lift = 0.42 if has["smiling"] else -0.08
    if has["open_mouth"]:
        oval(0.0, 12.5, 0.7 * reach, 3.0, _DARK)
    for one in (-1.0, 1.0):
        bar(one * 0.5 * reach, 12.0 - 0.6 * lift * reach, 0.56 * reach, 1.2, -one * lift, lips)


_LEVELS = ((110.0, 190.0, 25.0), (35.0, 110.0, 25.0), (50.0, 190.0, 40.0))
_DARK = np.full((3, 1, 1), 25.0, np.float32)


def _color(draw: Draws, low: float, high: float, spread: float) -> Floats:
    """Float32 `[3, 1, 1]`: a level between `low` and `high`, each colour off by up to `spread`."""
    color: Floats = (draw.between(low, high) + draw.color(-spread, spread))[..., 0]
    return color


def _bumps(source: torch.Generator, side: int) -> Floats:
    """Small bumps all over, brighter above and darker below, `[1, side, side]`."""
    count = BUMPS * side * side // 4096
    draws = torch.rand((2, count), generator=source).numpy()
    places = (draws[0] * (side * side)).astype(np.int64)
    peaks = np.zeros(side * side, np.float32)
    peaks[places] = np.float32(BUMP) * (np.float32(0.5) + np.float32(0.5) * draws[1])
    bumps = peaks.reshape(1, side, side)
    for axis in (1, 2):
        bumps = bumps + np.roll(bumps, 1, axis)
    return np.asarray(bumps - np.roll(bumps, (2, 1), (1, 2)))


@lru_cache(maxsize=8)
def _light(side: int) -> Floats:
    """Grey levels that the light adds, `[1, side, side]`: from above, a little from the left."""
    place = (np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1
    angle = math.radians(65.0)
    fall = math.sin(angle) * place[:, None] + math.cos(angle) * place[None, :]
    return np.asarray(-LIGHT * fall[None] / 1.33, np.float32)
