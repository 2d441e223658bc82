"""Images seen elsewhere than at their pixels: smooth warps and small rotations (section 4.2.2).

A warp is a polyharmonic spline of order 2 with its affine part (a thin-plate spline) through the
offsets of control points. On a fixed grid of points it is linear in the offsets: the system is
solved once, and a batch takes one matrix product and one `grid_sample`. Coordinates are pixels,
(column, row), the first pixel at (0, 0). Everything is batched and on the device of the images.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Placement = Literal["grid", "random"]

# Added to squared distances, so that the logarithm of 0 is never taken.
_NEAR = 1e-12
# Numbers evaluated at once where each image has its own points: what a processor's cache holds, and
# 256 MiB elsewhere.
_CELLS_CPU, _CELLS = 1 << 20, 1 << 26


@dataclass(frozen=True)
class Controls:
    """Control points `[B or 1, K, 2]` and by how much the image moves there, `[B, K, 2]`."""

    points: Tensor
    offsets: Tensor


@dataclass(frozen=True)
class Folding:
    """How often warps fold the image over itself.

    `images` is the share of warps that fold somewhere, `pixels` the share of all pixels where they
    do. `crossing` says that neighbouring points of the grid can change places, twice the range of
    the offsets being no less than their distance; then most warps fold.
    """

    images: float
    pixels: float
    crossing: bool


class RandomWarp:
    """Random warps of images of `height` × `width` pixels.

    There are `points`² control points: on a grid that reaches into the corners (`placement="grid"`,
    the thesis), or at places drawn for each image (`"random"`, the author's code with offsets of
    1/16). Each is moved by up to `reach` of the image's size along each axis. The spline is fitted
    where the points arrive: `out(q) = image(q − displacement(q))`.
    """

    def __init__(
        self,
        height: int,
        width: int,
        *,
        points: int = 4,
        reach: float = 0.1,
        placement: Placement = "grid",
        device: torch.device | str = "cpu",
    ) -> None:
        if points < 2 or min(height, width) < 2 or reach < 0:
            raise ValueError(
                f"no warp of {height}×{width} pixels with {points}×{points} points moved by {reach}"
            )
        self.size = (height, width)
        self.count = points**2
        self.placement = placement
        self.crossing = placement == "grid" and 2 * reach >= 1 / (points - 1)
        self.reach = reach
        self._spline: Spline | None = None
        if placement == "grid":
            rows = torch.linspace(0, height - 1, points, dtype=torch.float64)
            columns = torch.linspace(0, width - 1, points, dtype=torch.float64)
            grid = torch.cartesian_prod(rows, columns).flip(1)
            self._spline = Spline(grid, height, width, device)

    def draw(self, count: int, g: torch.Generator) -> Controls:
        """Control points of `count` warps, on the device of `g`."""
        shape = (count, self.count, 2)
        h, w = self.size
        unit = torch.rand(shape, generator=g, device=g.device)
        offsets = _scaled(2 * unit - 1, w * self.reach, h * self.reach)
        if self._spline is not None:
            return Controls(self._spline.points.to(g.device), offsets)
        places = torch.rand(shape, generator=g, device=g.device)
        return Controls(_scaled(places, w - 1, h - 1), offsets)

    def displacement(self, controls: Controls) -> Tensor:
        """By how many pixels the image moves at each pixel of the result: `[B, 2, H, W]`."""
        if self._spline is not None:
            return self._spline(controls.offsets)
        return spline_displacement(controls.points, controls.offsets, *self.size)

    def __call__(self, images: Tensor, controls: Controls) -> Tensor:
        """Warped images; beyond their border lies its nearest pixel. Takes float `[B, C, H, W]`."""
        h, w = self.size
        if tuple(images.shape[2:]) != self.size:
            raise ValueError(f"the warp is for images of {h}×{w}, not {tuple(images.shape[2:])}")
        device = images.device
        # Scaling the offsets scales what is between them.
        offsets = _scaled(controls.offsets.to(device), -2 / w, -2 / h)
        grid = self.displacement(Controls(controls.points.to(device), offsets))
        return _sampled(images, grid.add_(_normal(_pixels(h, w, device), h, w)), "border")

    def folding(self, g: torch.Generator, warps: int = 256) -> Folding:
        """How often such warps fold, of as many drawn."""
        shares = [
            folded(self.displacement(self.draw(min(32, warps - start), g)))
            for start in range(0, warps, 32)
        ]
        share = torch.cat(shares)
        return Folding(float((share > 0).float().mean()), float(share.mean()), self.crossing)


class Spline:
    """The spline through values at fixed `points` (float64 `[K, 2]`), at every pixel."""

    def __init__(
        self, points: Tensor, height: int, width: int, device: torch.device | str = "cpu"
    ) -> None:
        points = points.to("cpu", torch.float64)[None]
        solved = torch.linalg.inv(_system(points, max(height, width)))[:, : points.shape[1]]
        self.points = points.to(device, torch.float32)
        basis = solved @ _features(points, height, width)
        self._basis = basis[0].to(device, torch.float32)
        self._size = (height, width)

    def __call__(self, offsets: Tensor) -> Tensor:
        """Values float32 `[B, K, 2]` at the points → `[B, 2, H, W]`, linear in them."""
        self._basis = self._basis.to(offsets.device)
        with _exact(offsets.device):
            flat = offsets.to(torch.float32).transpose(1, 2).reshape(-1, offsets.shape[1])
            moved: Tensor = flat @ self._basis
        return moved.view(-1, 2, *self._size)


def spline_displacement(points: Tensor, offsets: Tensor, height: int, width: int) -> Tensor:
    """The spline through other points for each image: `[B, 2, H, W]` from `[B, K, 2]` twice.

    Points that coincide have no spline through different offsets.
    """
    scale = max(height, width)
    with _exact(points.device):
        values = F.pad(offsets.to(torch.float64), (0, 0, 0, 3))
        # The variant that checks nothing waits for nothing.
        solved, _ = torch.linalg.solve_ex(_system(points.to(torch.float64), scale), values)
        weights = solved.to(torch.float32).transpose(1, 2)
        points = points.to(torch.float32)
        cells = _CELLS_CPU if points.device.type == "cpu" else _CELLS
        at_once = max(1, cells // (weights.shape[2] * height * width))
        parts = zip(torch.split(weights, at_once), torch.split(points, at_once), strict=True)
        moved = torch.cat([part @ _features(place, height, width) for part, place in parts])
    return moved.view(-1, 2, height, width)


def _system(points: Tensor, scale: int) -> Tensor:
    """The matrix `[B, K + 3, K + 3]` whose solution for given values is the spline through them.

    Its kernel is 2 r² log r: a common factor of all distances, or of the kernel, changes nothing.
    """
    p = points / scale
    squared = (p[:, :, None] - p[:, None]).square().sum(-1) + _NEAR
    affine = torch.cat([torch.ones_like(p[..., :1]), p], -1)
    corner = torch.zeros(len(p), 3, 3, dtype=p.dtype, device=p.device)
    above = torch.cat([squared.log() * squared, affine], 2)
    return torch.cat([above, torch.cat([affine.transpose(1, 2), corner], 2)], 1)


def _features(points: Tensor, height: int, width: int) -> Tensor:
    """What the solution is multiplied with at each pixel: `[B, K + 3, H·W]`."""
    scale = max(height, width)
    p = points / scale
    columns = torch.arange(width, dtype=p.dtype, device=p.device) / scale
    rows = torch.arange(height, dtype=p.dtype, device=p.device) / scale
    across = (columns - p[..., :1]).square_()
    down = (rows - p[..., 1:]).square_().add_(_NEAR)
    features = p.new_empty(len(p), p.shape[1] + 3, height, width)
    squared = down[..., None] + across[..., None, :]
    torch.log(squared, out=features[:, :-3]).mul_(squared)
    features[:, -3] = 1
    features[:, -2] = columns
    features[:, -1] = rows[:, None]
    return features.flatten(2)


def folded(displacement: Tensor) -> Tensor:
    """Share `[B]` of pixels around which q ↦ q − displacement(q) turns the image inside out.

    There its Jacobian's determinant, from differences to the next pixels, is not positive.
    """
    along_x = displacement[..., :-1, 1:] - displacement[..., :-1, :-1]
    along_y = displacement[..., 1:, :-1] - displacement[..., :-1, :-1]
    straight = (1 - along_x[:, 0]) * (1 - along_y[:, 1])
    determinant = straight - along_y[:, 0] * along_x[:, 1]
    return (determinant <= 0).flatten(1).float().mean(1)


# Rotations


def random_angles(count: int, most: float, g: torch.Generator) -> Tensor:
    """Angles `[count]` in radians, uniform in [−most, most]."""
    return (2 * torch.rand(count, generator=g, device=g.device) - 1) * most


def rotate(images: Tensor, angles: Tensor) -> Tensor:
    """Images turned counter-clockwise about their centre by `angles` (radians, `[B]`).

    Bilinear, 0 (mid-grey in [-1, 1]) beyond the border. Takes float `[B, C, H, W]`.
    """
    corners = torch.zeros(len(images), 2, dtype=torch.int64, device=images.device)
    return _rotated(images, angles, corners, *images.shape[2:])


def rotated_crops(images: Tensor, angles: Tensor, corners: Tensor, size: int) -> Tensor:
    """`crop(rotate(images, angles), corners, size)`, computed where it is seen only."""
    h, w = images.shape[2:]
    if min(h, w) < size:
        raise ValueError(f"a crop of {size} does not fit into images of {h}×{w}")
    return _rotated(images, angles, corners, size, size)


def _rotated(images: Tensor, angles: Tensor, corners: Tensor, high: int, wide: int) -> Tensor:
    h, w = images.shape[2:]
    angles = angles.to(images.device, torch.float32)
    top, left = corners.to(images.device, torch.float32).unbind(1)
    pixels = _pixels(high, wide, images.device)
    x = pixels[0] + (left - (w - 1) / 2)[:, None, None]
    y = pixels[1] + (top - (h - 1) / 2)[:, None, None]
    cosine, sine = angles.cos()[:, None, None], angles.sin()[:, None, None]
    # With rows counted downwards, what is turned counter-clockwise comes from further clockwise.
    columns = (x * cosine - y * sine).add_((w - 1) / 2)
    rows = (x * sine + y * cosine).add_((h - 1) / 2)
    return _sampled(images, _normal(torch.stack([columns, rows], 1), h, w), "zeros")


def _pixels(height: int, width: int, device: torch.device) -> Tensor:
    """The coordinates of all pixels, `[2, H, W]`."""
    rows = torch.arange(height, dtype=torch.float32, device=device)
    columns = torch.arange(width, dtype=torch.float32, device=device)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y])


def _normal(places: Tensor, height: int, width: int) -> Tensor:
    """Pixel coordinates `[..., 2, H', W']` of an image as `grid_sample` counts them, in place."""
    places[..., 0, :, :].add_(0.5).mul_(2 / width).sub_(1)
    places[..., 1, :, :].add_(0.5).mul_(2 / height).sub_(1)
    return places


def _scaled(vectors: Tensor, x: float, y: float) -> Tensor:
    """`[..., 2]` times (x, y), without moving those to the device."""
    return torch.stack([vectors[..., 0] * x, vectors[..., 1] * y], -1)


@contextmanager
def _exact(device: torch.device) -> Iterator[None]:
    """Float32 as it is: with fewer digits an image would move by parts of a pixel or whole ones."""
    matmul = torch.backends.cuda.matmul
    former = matmul.allow_tf32
    matmul.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        matmul.allow_tf32 = former


def _sampled(images: Tensor, grid: Tensor, beyond: str) -> Tensor:
    """Images at the normal coordinates `grid` float32 `[B, 2, H', W']`, bilinear."""
    if not images.is_floating_point():
        raise ValueError(f"images must be float, not {images.dtype}")
    with _exact(images.device):
        places = grid.permute(0, 2, 3, 1)
        found = F.grid_sample(images.float(), places, "bilinear", beyond, align_corners=False)
    return found.to(images.dtype)
