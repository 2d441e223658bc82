"""The room of the built-in people: four calibrated cameras, and what stands still."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from selfsup_cli.data.multiview import Camera
from selfsup_cli.randomness import derive

if TYPE_CHECKING:
    from numpy.typing import NDArray


NAMES = ("camera1", "camera2", "camera3", "camera4")

_PIXELS = 500
_FOCAL = 572.0
# Where the cameras stand, in mm, in the order of NAMES, and the walls of the room.
_PLACES = ((3900, 3300, 1640), (-3700, 3500, 1520), (3600, -3600, 1710), (-3900, -3400, 1580))
_AIM = (0, 0, 920)
_WALLS = ((-4700, 4700), (-4300, 4300))
_HEIGHT = 3200.0
_POSTERS = 5


@lru_cache(maxsize=4)
def cameras(seed: int) -> tuple[Camera, ...]:
    """The four cameras in the corners of the room, fixed and calibrated."""
    g = np.random.default_rng(derive(seed, "cameras"))
    found = []
    for name, place in zip(NAMES, _PLACES, strict=True):
        origin = np.array(place) + g.uniform(-150, 150, size=3)
        forward = np.array(_AIM) + g.uniform(-60, 60, size=3) - origin
        forward /= np.linalg.norm(forward)
        across = np.cross(forward, [0, 0, 1])
        across /= np.linalg.norm(across)
        rotation = np.stack([across, np.cross(forward, across), forward])
        focal = _FOCAL * g.uniform(0.98, 1.02)
        middle = _PIXELS / 2 + g.uniform(-6, 6, size=2)
        intrinsics = np.array([[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1]])
        shift = -rotation @ origin
        found.append(Camera(name, _PIXELS, _PIXELS, intrinsics, rotation, shift))
    return tuple(found)


@lru_cache(maxsize=16)
def scene(number: int, seed: int) -> NDArray[np.uint8]:
    """The empty room as camera `number` (0 … 3) sees it, uint8 [3, H, W]."""
    camera = cameras(seed)[number]
    color = np.rint(_seen(camera, seed)).astype(np.uint8)
    return np.ascontiguousarray(color.transpose(2, 0, 1))


def _seen(camera: Camera, seed: int) -> NDArray[np.float64]:
    """The empty room, [H, W, 3] in 0 … 255; crops, which show it smaller, smooth its edges."""
    assert camera.intrinsics is not None  # noqa: S101 (its cameras are calibrated)
    assert camera.rotation is not None  # noqa: S101
    assert camera.translation is not None  # noqa: S101
    places = np.arange(_PIXELS) + 0.5
    focal, middle = camera.intrinsics[0, 0], camera.intrinsics[:2, 2]
    x, y = np.meshgrid((places - middle[0]) / focal, (places - middle[1]) / focal)
    rays = np.stack([x, y, np.ones_like(x)], -1) @ camera.rotation
    origin = -camera.rotation.T @ camera.translation
    return _lit(origin, rays, seed)


def _lit(origin: NDArray[np.float64], rays: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Colours [..., 3] of floor, ceiling and walls where the rays from inside meet them first."""
    bounds = np.array([*_WALLS, (0.0, _HEIGHT)])
    with np.errstate(divide="ignore", invalid="ignore"):
        far = np.where(rays > 0, bounds[:, 1] - origin, bounds[:, 0] - origin) / rays
    far = np.where(np.isfinite(far), far, np.inf)
    axis = far.argmin(-1)
    point = origin + rays * far.min(-1)[..., None]
    color = np.zeros_like(point)
    for number, (which, high) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]):
        chosen = (axis == which) & (
            (np.take_along_axis(rays, axis[..., None], -1)[..., 0] > 0) == high
        )
        here = point[chosen]
        if which == 2:
            color[chosen] = _floor(here, seed) if not high else 232.0
        else:
            color[chosen] = _wall(here[:, 1 - which], here[:, 2], number, seed)
    # Less light in the corners.
    away = np.abs(point[..., :2]) / np.array([_WALLS[0][1], _WALLS[1][1]])
    light = 1 - 0.22 * away.min(-1) ** 2 - 0.1 * (1 - point[..., 2] / _HEIGHT)
    seen: NDArray[np.float64] = np.clip(color * light[..., None], 0, 255)
    return seen


def _floor(point: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Boards of several shades, with a mat in the middle."""
    g = np.random.default_rng(derive(seed, "floor"))
    base = np.array([150, 118, 88]) + g.uniform(-18, 18, size=3)
    shades = g.uniform(-16, 16, size=64)
    board = np.floor(point[:, 0] / 210).astype(np.int64)
    length = np.floor((point[:, 1] + 700 * (board % 3)) / 1900).astype(np.int64)
    color: NDArray[np.float64] = base + shades[(7 * board + 13 * length) % 64][:, None]
    seam = (point[:, 0] / 210 - board) < 0.05
    color[seam] -= 30
    mat = (np.abs(point[:, 0] - 150) < 1900) & (np.abs(point[:, 1] + 100) < 1500)
    color[mat] = np.array([92, 104, 112]) + 6 * ((board + length) % 2)[mat, None]
    return color


def _wall(
    along: NDArray[np.float64], up: NDArray[np.float64], number: int, seed: int
) -> NDArray[np.float64]:
    """A wall of one colour with a skirting board, pictures and a door or cupboard."""
    g = np.random.default_rng(derive(seed, number, "wall"))
    color = np.broadcast_to(g.uniform(150, 215, size=3), (len(along), 3)).copy()
    for _ in range(_POSTERS):
        left, low = g.uniform(-4200, 3400), g.uniform(500, 1900)
        wide, high = g.uniform(350, 1200), g.uniform(300, 1000)
        one, two = g.uniform(30, 240, size=(2, 3))
        inside = (along > left) & (along < left + wide) & (up > low) & (up < low + high)
        turned = g.uniform(-1, 1)
        lines = np.sin((along[inside] + turned * up[inside]) / g.uniform(25, 110)) > g.uniform(
            -1, 1
        )
        color[inside] = np.where(lines[:, None], one, two)
    left, wide, high = g.uniform(-3200, 2000), g.uniform(800, 1300), g.uniform(900, 2100)
    inside = (along > left) & (along < left + wide) & (up < high)
    color[inside] = g.uniform(50, 170, size=3)
    line = inside & ((along - left) % (wide / 2) < 30)
    color[line] *= 0.7
    color[up < 90] = 70
    return color
