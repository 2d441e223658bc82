"""Cameras, the virtual camera of a crop, and boxes, against statements made another way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from selfsup_cli.data import geometry
from selfsup_cli.data.geometry import Box
from selfsup_cli.data.multiview import Camera

LENS = (-0.21, 0.09, 0.0012, -0.0007, -0.015)


def a_camera(seed: int = 0, *, lens: bool = True) -> Camera:
    g = np.random.default_rng(seed)
    rotation = Rotation.from_rotvec(g.normal(size=3)).as_matrix()
    matrix = np.array([[1145.0, 0, 512.5], [0, 1143.7, 515.4], [0, 0, 1]])
    at = np.array([300.0, -150.0, 4200.0])
    return Camera("one", 1000, 1000, matrix, rotation, at, LENS if lens else None)


def by_hand(point: np.ndarray, camera: Camera) -> tuple[float, float]:
    """OpenCV's projection of one point, written out."""
    assert camera.rotation is not None
    assert camera.translation is not None
    assert camera.intrinsics is not None
    seen = [
        sum(camera.rotation[i, j] * point[j] for j in range(3)) + camera.translation[i]
        for i in range(3)
    ]
    x, y = seen[0] / seen[2], seen[1] / seen[2]
    if camera.distortion is not None:
        k1, k2, p1, p2, k3 = camera.distortion
        r = x**2 + y**2
        factor = 1 + k1 * r + k2 * r**2 + k3 * r**3
        x, y = (
            x * factor + 2 * p1 * x * y + p2 * (r + 2 * x**2),
            y * factor + p1 * (r + 2 * y**2) + 2 * p2 * x * y,
        )
    k = camera.intrinsics
    return k[0, 0] * x + k[0, 2], k[1, 1] * y + k[1, 2]


@pytest.mark.parametrize("lens", [True, False])
def test_projection_is_that_of_opencv(lens: bool) -> None:
    camera = a_camera(lens=lens)
    points = np.random.default_rng(1).uniform(-900, 900, size=(40, 3))
    wanted = np.array([by_hand(point, camera) for point in points])
    np.testing.assert_allclose(geometry.project(points, camera), wanted, atol=1e-8)


def test_what_is_behind_a_camera_is_nowhere() -> None:
    camera = a_camera()
    behind = geometry.to_world(np.array([[10.0, 20.0, -500.0], [0.0, 0.0, 2000.0]]), camera)
    seen = geometry.project(behind, camera)
    assert np.isnan(seen[0]).all()
    assert np.isfinite(seen[1]).all()


def test_rays_lead_back_through_the_lens() -> None:
    camera = a_camera(3)
    points = np.random.default_rng(2).uniform(-900, 900, size=(30, 3))
    seen = geometry.to_camera(points, camera)
    rays = geometry.rays_of(geometry.project_camera(seen, camera), camera)
    np.testing.assert_allclose(rays, seen / seen[:, 2:], atol=1e-7)
    np.testing.assert_allclose(geometry.to_world(seen, camera), points, atol=1e-8)


def test_two_cameras_tell_where_a_point_is() -> None:
    cameras = [a_camera(seed) for seed in range(3)]
    points = np.random.default_rng(4).uniform(-500, 500, size=(6, 3))
    seen = np.stack([geometry.project(points, camera) for camera in cameras])
    seen[0, 0] = np.nan
    seen[:2, 1] = np.nan
    found = geometry.triangulate(seen, cameras)
    np.testing.assert_allclose(found[[0, 2, 3, 4, 5]], points[[0, 2, 3, 4, 5]], atol=1e-3)
    assert np.isnan(found[1]).all()


def test_parallel_rays_meet_nowhere() -> None:
    lens = np.array([[1000.0, 0, 500], [0, 1000, 500], [0, 0, 1]])
    camera = Camera("a", 1000, 1000, lens, np.eye(3), np.zeros(3))
    seen = np.full((2, 1, 2), 500.0)
    assert np.isnan(geometry.triangulate(seen, [camera, camera])).all()


numbers = st.floats(-3000, 3000, allow_nan=False)


@given(st.tuples(numbers, numbers, st.floats(200, 8000)))
def test_the_virtual_rotation_is_the_smallest_one(root: tuple[float, float, float]) -> None:
    found = geometry.virtual_rotation(root)
    direction = np.array(root) / np.linalg.norm(root)
    # Rodrigues: about the axis across both directions, by the angle between them.
    axis = np.cross(direction, [0, 0, 1])
    angle = np.arctan2(np.linalg.norm(axis), direction[2])
    unit = axis / max(np.linalg.norm(axis), 1e-300)
    wanted = Rotation.from_rotvec(angle * unit).as_matrix()
    np.testing.assert_allclose(found, wanted, atol=1e-9)
    np.testing.assert_allclose(found @ direction, [0, 0, 1], atol=1e-12)


def test_a_virtual_pose_is_what_a_camera_that_was_turned_sees() -> None:
    camera = a_camera(5, lens=False)
    g = np.random.default_rng(6)
    joints = geometry.to_camera(g.uniform(-700, 700, size=(17, 3)), camera)
    found = geometry.virtual_pose(joints)
    # The same by turning the camera: whatever it sees of the root lies on its axis.
    turn = geometry.virtual_rotation(joints[0])
    assert camera.rotation is not None
    assert camera.translation is not None
    turned = Camera(
        "turned", 1000, 1000, camera.intrinsics, turn @ camera.rotation, turn @ camera.translation
    )
    world = geometry.to_world(joints, camera)
    seen = geometry.to_camera(world, turned)
    np.testing.assert_allclose(seen[0, :2], 0, atol=1e-8)
    np.testing.assert_allclose(found, seen - seen[0], atol=1e-8)
    lengths = np.linalg.norm(joints - joints[0], axis=1)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), lengths)


@pytest.mark.parametrize("root", [(0.0, 0.0, 0.0), (0.0, 0.0, -1.0), (np.nan, 1.0, 1.0)])
def test_there_is_no_virtual_camera_for_some_roots(root: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="root joint"):
        geometry.virtual_rotation(root)


def test_a_crop_around_a_root_is_as_wide_as_was_asked_for() -> None:
    camera = a_camera(lens=False)
    root = np.array([400.0, -200.0, 5000.0])
    box = geometry.crop_around(root, camera, 2000.0)
    across, down = geometry.project_camera(root, camera)
    assert box.left + box.side / 2 == pytest.approx(across)
    assert box.top + box.side / 2 == pytest.approx(down)
    assert camera.intrinsics is not None
    focal = (camera.intrinsics[0, 0] + camera.intrinsics[1, 1]) / 2
    assert box.side == pytest.approx(2000 * focal / 5000)
    inside = geometry.into_crop(np.array([across, down]), box, 128)
    np.testing.assert_allclose(inside, [64, 64])


def test_a_box_holds_all_points_that_are_known() -> None:
    points = np.array([[10.0, 20.0], [50.0, 100.0], [np.nan, 7.0]])
    box = geometry.crop_box(points, margin=1.0)
    assert box == Box(30 - 40, 60 - 40, 80)
    wider = geometry.crop_box(points, margin=1.5, centre=[30.0, 20.0])
    assert wider == Box(30 - 120, 20 - 120, 240)
    with pytest.raises(ValueError, match="no point"):
        geometry.crop_box(points[2:])


def test_cameras_that_lack_something_say_so() -> None:
    bare = Camera("bare", 10, 10)
    with pytest.raises(ValueError, match="bare has no place"):
        geometry.to_camera(np.zeros(3), bare)
    with pytest.raises(ValueError, match="bare has no intrinsics"):
        geometry.project_camera(np.ones(3), bare)
