"""A renderer of bodies made of rounded cones: many small pictures at once, in NumPy.

A part of a body is what a ball sweeps over on its way from one point to another while its radius
changes. Where a ray meets it is the root of a quadratic equation, so depth, normals and silhouettes
are exact, and nothing is ever made of triangles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FAR = np.float32(1e9)


@dataclass(frozen=True)
class Parts:
    """K parts of the bodies in N pictures, as their camera has them, in mm.

    Part k of picture n goes from `starts[n, k]` with radius `radii[k, 0]` to `ends[n, k]` with
    `radii[k, 1]`; it is `flatness[k]` times as thick along the unit vector `flat[n, k]`. Up to the
    share `splits[k]` of its way it has colour `colors[k, 0]` (0 … 255), from there on
    `colors[k, 1]`; with `stripes[k]` of them the two take turns over all of it.
    """

    starts: NDArray[np.float32]
    ends: NDArray[np.float32]
    radii: NDArray[np.float32]
    flat: NDArray[np.float32]
    flatness: NDArray[np.float32]
    colors: NDArray[np.float32]
    splits: NDArray[np.float32]
    stripes: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.radii)


@dataclass(frozen=True)
class Window:
    """What each of N pictures of `side` pixels shows: the ray through x and y, each as `[N, side]`
    of x/z and y/z."""

    across: NDArray[np.float32]
    down: NDArray[np.float32]

    @property
    def side(self) -> int:
        """Height and width, in pixels."""
        return int(self.across.shape[1])

    def finer(self, times: int) -> Window:
        """The same with `times` as many pixels along each side."""
        return Window(*(_finer(rays, times) for rays in (self.across, self.down)))


@dataclass(frozen=True)
class Hits:
    """What the rays of N pictures of S pixels a side meet first, each `[N, S, S]`.

    `depth` is z in mm, 1e9 where there is nothing; `part` is the number of the part, -1 likewise;
    `along` says where on its way the ball is that is met there (0 … 1).
    """

    depth: NDArray[np.float32]
    part: NDArray[np.int8]
    along: NDArray[np.float32]


def cast(parts: Parts, window: Window) -> Hits:
    """What each ray meets first, with a depth buffer."""
    count, side = window.across.shape
    depth = np.full(count * side * side, _FAR, np.float32)
    which = np.full(count * side * side, -1, np.int8)
    along = np.zeros(count * side * side, np.float32)
    for k in range(len(parts)):
        place, x, y, frame = _candidates(parts, k, window)
        if not len(place):
            continue
        z, s = _meet(parts, k, x, y, frame)
        closer = np.flatnonzero(z < depth[place])
        here = place[closer]
        depth[here] = z[closer]
        which[here] = k
        along[here] = s[closer]
    shape = (count, side, side)
    return Hits(depth.reshape(shape), which.reshape(shape), along.reshape(shape))


def shade(
    parts: Parts, window: Window, hits: Hits, light: NDArray[np.float32], ambient: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Diffuse light on what was met: places in the flat `[N·S·S]`, and colours `[M, 3]` (0 … 255).

    `light` [N, 3] points to the lamp, which is far away, as the camera of each picture has it; what
    looks away from it gets `ambient` (0 … 1) of the light alone, a little less from below.
    """
    side = window.side
    part = hits.part.reshape(-1)
    places = np.flatnonzero(part >= 0)
    k = part[places].astype(np.int64)
    frame, pixel = np.divmod(places, side * side)
    row, column = np.divmod(pixel, side)
    z = hits.depth.reshape(-1)[places]
    s = hits.along.reshape(-1)[places]
    point = np.stack([window.across[frame, column] * z, window.down[frame, row] * z, z], -1)
    start = parts.starts[frame, k]
    normal = point - (start + s[:, None] * (parts.ends[frame, k] - start))
    # In the space in which a flat part is round a normal is that of a ball; back from there.
    thin = 1 / parts.flatness[k] ** 2 - 1
    direction = parts.flat[frame, k]
    normal += direction * (thin * (normal * direction).sum(-1))[:, None]
    normal /= np.sqrt((normal * normal).sum(-1, keepdims=True)) + np.float32(1e-6)
    lit = (normal * light[frame]).sum(-1)
    bright = ambient + (1 - ambient) * np.clip(lit, 0, 1) - 0.08 * np.clip(normal[:, 1], 0, 1)
    striped = parts.stripes[k]
    second = np.where(striped > 0, (s * striped) % 1 > 0.5, s > parts.splits[k])
    color = parts.colors[k, second.astype(np.int64)]
    return places, color * bright[:, None]


def _finer(rays: NDArray[np.float32], times: int) -> NDArray[np.float32]:
    """Rays at equal distances `[N, S]` through the parts of which each pixel has `times`."""
    if times == 1:
        return rays
    side = rays.shape[1]
    step = (rays[:, -1:] - rays[:, :1]) / max(side - 1, 1)
    places = (np.arange(side * times, dtype=np.float32) + 0.5) / times - 0.5
    finer: NDArray[np.float32] = rays[:, :1] + step * places
    return finer


def _candidates(
    parts: Parts, k: int, window: Window
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """The pixels in the rectangles that hold part k of each picture: their places in the flat
    `[N·S·S]`, the x/z and y/z of their rays, and whose picture they are of."""
    side = window.side
    corners = [_extent(parts, k, axis) for axis in (0, 1)]
    left, right = _reached(window.across, *corners[0])
    top, bottom = _reached(window.down, *corners[1])
    width, height = np.maximum(right - left, 0), np.maximum(bottom - top, 0)
    height[width == 0] = 0
    # A run of pixels for each row of each rectangle.
    frame = np.repeat(np.arange(len(width)), height)
    row = _counted(height) + np.repeat(top, height)
    runs = width[frame]
    first = np.cumsum(runs) - runs
    pixel = np.arange(int(runs.sum()))
    column = pixel + np.repeat(left[frame] - first, runs)
    place = column + np.repeat((frame * side + row) * side, runs)
    owner = np.repeat(frame, runs)
    x = window.across.reshape(-1)[column + owner * side]
    y = np.repeat(window.down[frame, row], runs)
    return place, x, y, owner


def _counted(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, … of each of the lengths, one after the other."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) - np.repeat(ends - lengths, lengths)


def _extent(parts: Parts, k: int, axis: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Bounds [N] on x/z (or y/z) of part k; all of the picture where it reaches the camera."""
    lows, highs = [], []
    for points, radius in ((parts.starts, parts.radii[k, 0]), (parts.ends, parts.radii[k, 1])):
        near = points[:, k, 2] - radius
        safe = np.maximum(near, np.float32(1.0))
        middle, far = points[:, k, axis], near + 2 * radius
        low, high = middle - radius, middle + radius
        lows.append(np.where(near > 1, np.minimum(low / safe, low / far), -np.inf))
        highs.append(np.where(near > 1, np.maximum(high / safe, high / far), np.inf))
    return np.minimum(*lows), np.maximum(*highs)


def _reached(
    rays: NDArray[np.float32], low: NDArray[np.float32], high: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and one past the last of the `[N, S]` rays at equal distances between the bounds."""
    side = rays.shape[1]
    step = (rays[:, -1] - rays[:, 0]) / max(side - 1, 1)
    first = np.clip(np.ceil((low - rays[:, 0]) / step), 0, side)
    last = np.clip(np.floor((high - rays[:, 0]) / step) + 1, 0, side)
    return first.astype(np.int64), last.astype(np.int64)


def _meet(
    parts: Parts,
    k: int,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    frame: NDArray[np.int64],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Depth and place along part k where rays (x, y, 1) meet it first; far away where they do not.

    A ball of the part at the share s of the way touches a point p of the surface where
    |p − a − s·b|² = (r + s·q)² has a double root in s (a start, b way, r radius, q its change):
    with d = |b|² − q² that is ((p − a)·b + r·q)² = d·(|p − a|² − r²), which is quadratic in the
    depth.
    """
    start, way = parts.starts[:, k], parts.ends[:, k] - parts.starts[:, k]
    r = parts.radii[k, 0]
    q = parts.radii[k, 1] - r
    flat = parts.flatness[k]
    squared = x * x + y * y + 1
    if flat != 1:
        # Stretched along the direction in which it is flat, the part is round.
        direction = parts.flat[:, k]
        thin = 1 / flat - 1
        steep = _dot(direction, x, y, frame)
        squared = squared + (thin * (2 + thin)) * steep * steep
        both = np.stack([start, way])
        both = both + thin * direction * (both * direction).sum(-1, keepdims=True)
        start, way = both
        # d·M a with M symmetric: turn the points once more rather than every ray.
        ray_start = start + thin * direction * (start * direction).sum(-1, keepdims=True)
        ray_way = way + thin * direction * (way * direction).sum(-1, keepdims=True)
    else:
        ray_start, ray_way = start, way
    toward = _dot(ray_start, x, y, frame)
    along = _dot(ray_way, x, y, frame)
    length = (way * way).sum(-1)
    d = length - q * q
    fixed = r * q - (start * way).sum(-1)
    inside = (start * start).sum(-1) - r * r
    beyond = ((start + way) ** 2).sum(-1) - (r + q) ** 2
    depth, share = _ball(squared, toward, inside[frame]), np.zeros_like(x)
    other = _ball(squared, toward + along, beyond[frame])
    share[other < depth] = 1
    np.minimum(depth, other, out=depth)
    own = d[frame]
    w = fixed[frame]
    k2 = own * squared - along * along
    k1 = own * toward + w * along
    disc = k1 * k1 - k2 * (own * inside[frame] - w * w)
    met = np.flatnonzero((disc > 0) & (k2 > 0))
    z = (k1[met] - np.sqrt(disc[met])) / k2[met]
    s = (w[met] + z * along[met]) / own[met]
    good = (s > 0) & (s < 1) & (z > 0) & (z < depth[met])
    met = met[good]
    depth[met] = z[good]
    share[met] = s[good]
    return depth, share


def _dot(
    vector: NDArray[np.float32],
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    frame: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Products of the rays (x, y, 1) with the vector [N, 3] of their picture."""
    found: NDArray[np.float32] = x * vector[frame, 0] + y * vector[frame, 1] + vector[frame, 2]
    return found


def _ball(
    squared: NDArray[np.float32], toward: NDArray[np.float32], outside: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Where a ray enters a ball: ray² , ray·centre, centre² − radius²."""
    disc = toward * toward - squared * outside
    depth = np.full_like(squared, _FAR)
    met = np.flatnonzero((disc > 0) & (toward > 0))
    depth[met] = (toward[met] - np.sqrt(disc[met])) / squared[met]
    return depth
