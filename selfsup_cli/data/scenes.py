"""Built-in images in which only the arrangement of its parts tells what an object is (`scenes`).

Every object has a body and the same four parts around it: a disc, a wedge and two bars. Its class
is where around the body they sit, mirrored or not. Place, scale, tilt, the angle at which each part
is turned, its colours and texture, and the background are drawn from the same distributions for
every class, so that no part, texture or patch says anything of it. Nor do they say where up is: no
arrangement becomes one of the others, or itself, by quarter turns, so an image can be turned
upright by whoever knows the object, and by nobody else.

Every image is a pure function of (seed, part of the data, index), and so is which of its pixels
are the object.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from selfsup_cli.data.drawing import Canvas, Draws, TracedCanvas, balanced, clouds, grain
from selfsup_cli.randomness import derive, generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

C = TypeVar("C", bound=Canvas)

VERSION = 1  # part of the fingerprint: raise it with any change of what is rendered

# Where disc, wedge and bars sit, in eighths of a turn clockwise from the top.
ARRANGEMENTS: dict[str, tuple[int, int, int, int]] = {
    "alpha": (4, 7, 0, 2),
    "beta": (7, 2, 3, 5),
    "gamma": (5, 4, 0, 6),
    "delta": (6, 5, 1, 7),
    "epsilon": (3, 5, 4, 7),
    "zeta": (0, 6, 4, 7),
    "eta": (4, 0, 3, 6),
    "theta": (4, 5, 2, 6),
}
CLASSES = tuple(ARRANGEMENTS)

BODY = (0.15, 0.2)  # radius, in sides of the image
TILT = 8.0  # degrees to either side
GRAIN = 6.0  # standard deviation, in grey levels
_TURN = 2.0 * math.pi
_CLOUDS = ((3, 28.0), (6, 20.0), (12, 14.0))  # cells, grey levels
_DRAWS = 96


def class_of(seed: int, part: str, index: int) -> int:
    """Class of an image. Each run of as many images as there are classes has every class once."""
    return balanced(len(CLASSES), index, seed, "scenes", part, "classes")


def render(seed: int, part: str, index: int, side: int) -> NDArray[np.uint8]:
    """An image as uint8 `[3, side, side]`."""
    canvas = _drawn(seed, part, index, side, Canvas)
    key = derive(seed, "scenes", part, index, "grain")
    return canvas.finished(grain(GRAIN), key)


def outline(seed: int, part: str, index: int, side: int) -> NDArray[np.bool_]:
    """Which pixels of an image are the object, its body and its parts: bool `[side, side]`."""
    return _drawn(seed, part, index, side, TracedCanvas).covered


def _drawn(seed: int, part: str, index: int, side: int, kind: type[C]) -> C:
    """The object on its background."""
    arrangement = ARRANGEMENTS[CLASSES[class_of(seed, part, index)]]
    source = generator(seed, "scenes", part, index)
    draw = Draws(source, _DRAWS)
    level = draw.between(75.0, 180.0)
    behind = clouds(source, _CLOUDS, side) + level + draw.color(-30.0, 30.0)[..., 0]
    canvas = kind(behind)

    radius = side * draw.between(*BODY)
    reach = 2.3 * radius
    x, y = draw.between(reach, side - reach), draw.between(reach, side - reach)
    tilt = draw.between(-TILT, TILT) / 360.0
    hand = 1.0 if draw.between(-1.0, 1.0) > 0 else -1.0
    lighter = 1.0 if level < 127.0 else -1.0

    def paint() -> tuple[Floats, Floats, float, float, float]:
        """Colour and contrast of the texture, its frequency, direction and phase."""
        color = level + lighter * draw.between(60.0, 95.0) + draw.color(-45.0, 45.0)[..., 0]
        contrast = draw.color(-35.0, 35.0)[..., 0]
        return (
            color,
            contrast,
            draw.between(0.5, 1.6) / (0.15 * radius + 1.0),
            draw.between(0.0, _TURN),
            draw.between(0.0, _TURN),
        )

    stretch = draw.between(0.88, 1.12)
    canvas.ellipse(x, y, radius * stretch, radius / stretch, draw.between(0.0, _TURN), *paint())
    for number, slot in enumerate(arrangement):
        angle = _TURN * (hand * slot / 8.0 + tilt + draw.between(-0.015, 0.015))
        away = radius * draw.between(1.35, 1.5)
        size = radius * draw.between(0.5, 0.6)
        at = x + away * math.sin(angle), y - away * math.cos(angle)
        turned = draw.between(0.0, _TURN)
        match number:
            case 0:
                canvas.ellipse(*at, size, size, turned, *paint())
            case 1:
                canvas.wedge(*at, 1.15 * size, turned, *paint())
            case _:
                canvas.bar(*at, 1.2 * size, 0.36 * size, turned, *paint())
    return canvas
