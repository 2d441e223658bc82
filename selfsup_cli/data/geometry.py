"""Cameras and points: projection, the virtual camera of a crop, and crops around a subject.

World and cameras are in millimetres, pictures in pixels. A camera sees `x_cam = R x + t`, with x to
the right, y down and z forward; the centre of the first pixel of a picture lies at (0.5, 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from selfsup_cli.data.multiview import Camera

_UNDISTORTIONS = 20
_NEAREST = 1.0
_PARALLEL = 1e-9


@dataclass(frozen=True)
class Box:
    """A square of a picture: its left upper corner and its side, in pixels, with fractions."""

    left: float
    top: float
    side: float


def to_camera(points: ArrayLike, camera: Camera) -> NDArray[np.float64]:
    """Points of the world [..., 3] as the camera has them. Raises ValueError without its place."""
    if camera.rotation is None or camera.translation is None:
        raise ValueError(f"camera {camera.name} has no place in the world")
    rotation = np.asarray(camera.rotation, np.float64)
    shift = np.asarray(camera.translation, np.float64).reshape(3)
    return np.asarray(points, np.float64) @ rotation.T + shift


def to_world(points: ArrayLike, camera: Camera) -> NDArray[np.float64]:
    """The inverse of `to_camera`."""
    if camera.rotation is None or camera.translation is None:
        raise ValueError(f"camera {camera.name} has no place in the world")
    rotation = np.asarray(camera.rotation, np.float64)
    shift = np.asarray(camera.translation, np.float64).reshape(3)
    return (np.asarray(points, np.float64) - shift) @ rotation


def distort(
    rays: NDArray[np.float64], coefficients: tuple[float, ...] | None
) -> NDArray[np.float64]:
    """Where a lens puts what an ideal camera would see at `rays` [..., 2] (x/z, y/z).

    `coefficients` are (k1, k2, p1, p2, k3) of Brown's model, as OpenCV orders them.
    """
    if coefficients is None or not any(coefficients):
        return rays
    k1, k2, p1, p2, k3 = coefficients
    x, y = rays[..., 0], rays[..., 1]
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    across = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    down = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return np.stack([across, down], -1)


def undistort(
    seen: NDArray[np.float64], coefficients: tuple[float, ...] | None
) -> NDArray[np.float64]:
    """The inverse of `distort`, by fixed-point iteration: for lenses as they are used."""
    if coefficients is None or not any(coefficients):
        return seen
    rays = seen
    for _ in range(_UNDISTORTIONS):
        rays = rays + (seen - distort(rays, coefficients))
    return rays


def project_camera(points: ArrayLike, camera: Camera) -> NDArray[np.float64]:
    """Pixels [..., 2] of points that are given as the camera has them [..., 3].

    NaN for what lies behind the camera. Raises ValueError without intrinsics.
    """
    if camera.intrinsics is None:
        raise ValueError(f"camera {camera.name} has no intrinsics")
    points = np.asarray(points, np.float64)
    depth = np.where(points[..., 2:] < _NEAREST, np.nan, points[..., 2:])
    rays = distort(points[..., :2] / depth, camera.distortion)
    matrix = np.asarray(camera.intrinsics, np.float64)
    return rays @ matrix[:2, :2].T + matrix[:2, 2]


def project(points: ArrayLike, camera: Camera) -> NDArray[np.float64]:
    """Pixels [..., 2] of points of the world [..., 3]; NaN for what lies behind the camera."""
    return project_camera(to_camera(points, camera), camera)


def rays_of(pixels: ArrayLike, camera: Camera) -> NDArray[np.float64]:
    """Directions [..., 3] with z = 1, as the camera has them, in which it sees pixels [..., 2]."""
    if camera.intrinsics is None:
        raise ValueError(f"camera {camera.name} has no intrinsics")
    matrix = np.asarray(camera.intrinsics, np.float64)
    seen = (np.asarray(pixels, np.float64) - matrix[:2, 2]) @ np.linalg.inv(matrix[:2, :2]).T
    rays = undistort(seen, camera.distortion)
    return np.concatenate([rays, np.ones_like(rays[..., :1])], -1)


def virtual_rotation(root: ArrayLike) -> NDArray[np.float64]:
    """The smallest rotation [..., 3, 3] that takes the direction of `root` [..., 3] to (0, 0, 1).

    Cutting a crop around a subject out of a picture amounts to turning the camera towards it, so
    poses are turned alike (thesis, section 6.2.4): with a = r/‖r‖ and v = a × z, it is
    I + [v]ₓ + [v]ₓ² / (1 + a·z). Raises ValueError for a root at the camera, or straight behind it,
    where no rotation is smallest.
    """
    root = np.asarray(root, np.float64)
    length = np.linalg.norm(root, axis=-1, keepdims=True)
    if not (length > 0).all():
        raise ValueError("a root joint lies in the camera itself, or is not known")
    x, y, z = np.moveaxis(root / length, -1, 0)
    if (z <= -1 + 1e-12).any():
        raise ValueError("a root joint lies straight behind the camera")
    inverse = 1 / (1 + z)
    rows = [
        [1 - x * x * inverse, -x * y * inverse, -x],
        [-x * y * inverse, 1 - y * y * inverse, -y],
        [x, y, z],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def virtual_pose(joints: ArrayLike, root: int = 0) -> NDArray[np.float64]:
    """Joints [..., J, 3] as a camera has them, relative to the root and turned as its crop asks."""
    joints = np.asarray(joints, np.float64)
    origin = joints[..., root, :]
    turned = virtual_rotation(origin)
    relative = joints - origin[..., None, :]
    found: NDArray[np.float64] = np.einsum("...ij,...kj->...ki", turned, relative)
    return found


def crop_around(root: ArrayLike, camera: Camera, extent: float) -> Box:
    """The square around a root [3], as the camera has it, that is `extent` mm wide at its depth.

    Its side does not depend on the pose, so a crop shows how large a subject is.
    """
    if camera.intrinsics is None:
        raise ValueError(f"camera {camera.name} has no intrinsics")
    root = np.asarray(root, np.float64)
    across, down = project_camera(root, camera)
    matrix = np.asarray(camera.intrinsics, np.float64)
    side = extent / float(root[2]) * (matrix[0, 0] + matrix[1, 1]) / 2
    return Box(float(across - side / 2), float(down - side / 2), float(side))


def crop_box(pixels: ArrayLike, margin: float = 1.2, centre: ArrayLike | None = None) -> Box:
    """The square with `centre` (by default the middle) that holds `pixels` [N, 2], times `margin`.

    Points that are NaN do not count. Raises ValueError where there are none.
    """
    points = np.asarray(pixels, np.float64)
    points = points[np.isfinite(points).all(-1)]
    if not len(points):
        raise ValueError("there is no point to cut around")
    low, high = points.min(0), points.max(0)
    middle = (low + high) / 2 if centre is None else np.asarray(centre, np.float64)
    reach = np.maximum(high - middle, middle - low).max()
    half = max(float(reach) * margin, 1.0)
    return Box(float(middle[0]) - half, float(middle[1]) - half, 2 * half)


def into_crop(pixels: ArrayLike, box: Box, side: int) -> NDArray[np.float64]:
    """Pixels [..., 2] of a picture as pixels of its crop `box`, scaled to `side`."""
    corner = np.array([box.left, box.top])
    found: NDArray[np.float64] = (np.asarray(pixels, np.float64) - corner) * (side / box.side)
    return found


def triangulate(pixels: ArrayLike, cameras: list[Camera]) -> NDArray[np.float64]:
    """The points [N, 3] of the world that `cameras` (at least two) see at pixels [C, N, 2].

    The least squares of the distances to their rays; views that are NaN do not count, and a point
    with fewer than two, or whose rays are parallel, is NaN.
    """
    pixels = np.asarray(pixels, np.float64)
    count = pixels.shape[1]
    left = np.zeros((count, 3, 3))
    right = np.zeros((count, 3))
    views = np.zeros(count, np.int64)
    for seen, camera in zip(pixels, cameras, strict=True):
        origin = to_world(np.zeros(3), camera)
        along = to_world(rays_of(seen, camera), camera) - origin
        along /= np.linalg.norm(along, axis=-1, keepdims=True)
        across = np.eye(3) - along[:, :, None] * along[:, None, :]
        known = np.isfinite(along).all(-1)
        left[known] += across[known]
        right[known] += across[known] @ origin
        views += known
    found = np.full((count, 3), np.nan)
    # The smallest eigenvalue says how far the rays are from having one direction.
    enough = (views >= 2) & (np.linalg.eigvalsh(left)[:, 0] > _PARALLEL)
    found[enough] = np.linalg.solve(left[enough], right[enough][..., None])[..., 0]
    return found
