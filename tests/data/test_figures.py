"""The built-in people: rendering against marching along rays, and what their views promise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from selfsup_cli.config.figures import MOTIONS, SUBJECTS, Figures
from selfsup_cli.config.joints import BONES, MIRRORED, PARENTS, SIDES
from selfsup_cli.data import room
from selfsup_cli.data.bodies import body_of
from selfsup_cli.data.figures import EXTENT, RenderedFigures, open_figures, rendered
from selfsup_cli.data.geometry import Box, into_crop, project, to_camera, virtual_pose
from selfsup_cli.data.motions import by_rule
from selfsup_cli.data.raycast import Parts, Window, cast, shade
from selfsup_cli.errors import InputError

# -- rendering


def some_parts() -> Parts:
    """A thick cone, one that lies flat, and a ball behind both."""
    starts = np.array([[[-200, -100, 3000], [50, 150, 2800], [0, 0, 3600]]], np.float32)
    ends = np.array([[[150, 100, 3300], [300, -150, 2700], [0, 1, 3600]]], np.float32)
    flat = np.zeros((1, 3, 3), np.float32)
    flat[0, 1] = np.array([0.6, 0.0, 0.8])
    return Parts(
        starts=starts,
        ends=ends,
        radii=np.array([[120, 60], [90, 110], [250, 250]], np.float32),
        flat=flat,
        flatness=np.array([1, 0.6, 1], np.float32),
        colors=np.full((3, 2, 3), 200, np.float32),
        splits=np.full(3, 2, np.float32),
        stripes=np.zeros(3, np.float32),
    )


def some_rays(side: int) -> Window:
    rays = np.linspace(-0.16, 0.16, side, dtype=np.float32)[None]
    return Window(rays, rays + np.float32(0.01))


def marched(parts: Parts, k: int, ray: np.ndarray) -> float:
    """Where a ray enters part k, found in small steps: the first point in one of its balls."""
    stretch = np.eye(3) + (1 / parts.flatness[k] - 1) * np.outer(parts.flat[0, k], parts.flat[0, k])
    share = np.linspace(0, 1, 150)[:, None]
    centres = parts.starts[0, k] + share * (parts.ends[0, k] - parts.starts[0, k])
    radii = parts.radii[k, 0] + share[:, 0] * (parts.radii[k, 1] - parts.radii[k, 0])
    depths = np.arange(2500.0, 3900.0, 4.0)
    off = (depths[:, None, None] * ray - centres) @ stretch
    inside = (np.linalg.norm(off, axis=2) < radii).any(1)
    return float(depths[inside.argmax()]) if inside.any() else np.inf


def test_depths_are_those_of_marching_along_the_rays() -> None:
    parts, window = some_parts(), some_rays(24)
    hits = cast(parts, window)
    met = 0
    for row, column in np.random.default_rng(0).integers(0, 24, size=(60, 2)).tolist():
        ray = np.array([window.across[0, column], window.down[0, row], 1.0])
        depths = [marched(parts, k, ray) for k in range(3)]
        nearest = int(np.argmin(depths))
        if not np.isfinite(depths[nearest]):
            assert hits.part[0, row, column] == -1
            continue
        met += 1
        assert hits.part[0, row, column] == nearest
        assert hits.depth[0, row, column] == pytest.approx(depths[nearest], abs=6)
    assert 15 < met < 50


def test_light_falls_on_what_looks_at_the_lamp() -> None:
    parts, window = some_parts(), some_rays(33)
    hits = cast(parts, window)
    toward = np.array([[0.0, 0.0, -1.0]], np.float32)
    places, color = shade(parts, window, hits, toward, 0.3)
    seen = np.zeros(33 * 33)
    seen[places] = color[:, 0]
    assert (seen > 0).sum() == (hits.part >= 0).sum()
    assert seen.max() == pytest.approx(200, abs=12)
    away, dark = shade(parts, window, hits, -toward, 0.3)
    np.testing.assert_array_equal(away, places)
    assert dark.max() <= 200 * 0.3 + 1


def test_a_finer_window_shows_the_same_middle() -> None:
    window = some_rays(8)
    fine = window.finer(3)
    means = fine.across.reshape(1, 8, 3).mean(2)
    np.testing.assert_allclose(means, window.across, atol=1e-6)


# -- people


@pytest.mark.parametrize("action", MOTIONS)
def test_a_motion_keeps_bones_and_feet_where_they_are(action: str) -> None:
    motion = by_rule(action, 200, 0, "S1", 0)
    body = body_of("S1", 0)
    joints = motion.joints(body)
    for parent, joint in BONES:
        length = np.linalg.norm(joints[:, joint] - joints[:, parent], axis=1)
        np.testing.assert_allclose(length, body.lengths[joint], rtol=1e-9)
    lowest = joints[:, (3, 6), 2].min(1)
    assert (lowest >= body.foot - 1e-6).all()
    assert np.abs(joints[:, 0, :2]).max() < 2000
    # It moves, and smoothly: no joint faster than 13 m/s.
    step = np.linalg.norm(np.diff(joints, axis=0), axis=2)
    assert step.max() < 13_000 / 50
    assert step.mean() > 2
    again = by_rule(action, 200, 0, "S1", 0)
    np.testing.assert_array_equal(motion.directions, again.directions)
    other = by_rule(action, 200, 0, "S5", 0)
    assert np.abs(other.directions - motion.directions).max() > 0.1


def test_bodies_differ_and_are_symmetric() -> None:
    bodies = [body_of(name, 0) for name in SUBJECTS]
    assert len({body.lengths.tobytes() for body in bodies}) == len(SUBJECTS)
    assert len({body.shirt for body in bodies}) > 2
    for body in bodies:
        for left, right in SIDES:
            assert body.lengths[left] == body.lengths[right]
    np.testing.assert_array_equal(np.array(MIRRORED)[list(MIRRORED)], np.arange(17))
    assert all(MIRRORED[PARENTS[joint]] == PARENTS[MIRRORED[joint]] for joint in range(17))


# -- views


@pytest.fixture(scope="module")
def figures() -> RenderedFigures:
    return rendered(Figures(actions=["dancing"], seconds=3), 48, ["S1", "S9"])


def test_four_cameras_stand_apart_and_look_at_the_middle() -> None:
    cameras = room.cameras(0)
    assert len(cameras) == 4
    for camera in cameras:
        seen = project(np.array([0.0, 0.0, 900.0]), camera)
        assert np.linalg.norm(seen - camera.width / 2) < camera.width / 10
        assert room.scene(cameras.index(camera), 0).shape == (3, camera.height, camera.width)
    up = [project(np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1800.0]]), camera) for camera in cameras]
    assert all(head[1] < feet[1] for feet, head in up)


def test_joints_lie_on_the_subject_who_is_in_the_middle(figures: RenderedFigures) -> None:
    frames = [0, 40, 149]
    for camera in range(4):
        masks = figures.masks(0, camera, frames)
        pixels = figures.pixels(0, camera, frames)
        np.testing.assert_allclose(pixels[:, 0], 24, atol=0.6)
        # Knees, elbows, the spine and the head are inside of the body, wherever it is seen from.
        for mask, joints in zip(masks, pixels, strict=True):
            inner = joints[[0, 2, 5, 7, 12, 15]].astype(int)
            inner = inner[((inner >= 0) & (inner < 48)).all(1)]
            assert mask[inner[:, 1], inner[:, 0]].all()
            assert 0.02 < mask.mean() < 0.3


def test_poses_and_pixels_are_of_the_joints_in_the_world(figures: RenderedFigures) -> None:
    frame, camera = 70, 2
    view = figures.recordings[1].cameras[camera]
    world = figures.joints(1)[frame]
    np.testing.assert_allclose(
        figures.poses(1, camera, [frame])[0], virtual_pose(to_camera(world, view)), atol=1e-2
    )
    left, top, side = next(figures.pieces(1, camera, frame)).boxes[0]  # type: ignore[index]
    wanted = into_crop(project(world, view), Box(left, top, side), 48)
    np.testing.assert_allclose(figures.pixels(1, camera, [frame])[0], wanted, atol=1e-3)
    depth = to_camera(world, view)[0, 2]
    assert view.intrinsics is not None
    assert side == pytest.approx(EXTENT * view.intrinsics[0, 0] / depth, abs=1)


def test_all_but_the_subject_is_the_empty_room(figures: RenderedFigures) -> None:
    frames = [10, 90]
    crops, masks = figures.crops(0, 1, frames), figures.masks(0, 1, frames)
    empty = figures.backgrounds(0, 1, frames)
    off = np.abs(crops.astype(int) - empty).max(1)
    # One pixel around the subject is partly covered; elsewhere there is only the camera's noise.
    grown = masks.copy()
    for axis in (1, 2):
        grown |= np.roll(masks, 1, axis) | np.roll(masks, -1, axis)
    assert off[~grown].max() < 12
    assert np.median(off[masks]) > 20
    plain = rendered(Figures(actions=["dancing"], seconds=3, scene="none"), 48, ["S1"])
    behind = plain.crops(0, 1, frames)[:, 0]
    assert (behind[~grown] == 124).all()


def test_frames_are_the_same_whichever_are_asked_for(figures: RenderedFigures) -> None:
    some = figures.crops(0, 3, [7, 120, 7])
    np.testing.assert_array_equal(some[0], some[2])
    np.testing.assert_array_equal(figures.crops(0, 3, [120])[0], some[1])
    with pytest.raises(IndexError):
        figures.crops(0, 3, [150])


def test_pieces_of_a_store_go_on_anywhere(figures: RenderedFigures) -> None:
    whole = np.concatenate([piece.motion for piece in figures.pieces(0, 0, 0)])
    assert whole.shape == (150,)
    assert whole[0] == 0
    assert (whole[1:] > 0).all()
    part = list(figures.pieces(0, 0, 140))
    np.testing.assert_allclose(part[0].motion, whole[140:], rtol=1e-5)
    np.testing.assert_array_equal(part[0].crops, figures.crops(0, 0, range(140, 150)))


def test_a_store_holds_what_was_rendered(tmp_path: Path) -> None:
    spec = Figures(actions=["boxing"], seconds=3)
    views = open_figures(spec, 32, subjects=["S7"], cache=tmp_path)
    direct = rendered(spec, 32, ["S7"])
    assert [one.id for one in views.recordings] == ["S7/boxing"]
    stored, plain = views.crops(0, 1, [5, 100]), direct.crops(0, 1, [5, 100])
    assert np.abs(stored.astype(int) - plain).mean() < 5
    np.testing.assert_array_equal(views.masks(0, 1, [5]), direct.masks(0, 1, [5]))
    np.testing.assert_array_equal(views.poses(0, 1, [5, 9]), direct.poses(0, 1, [5, 9]))
    np.testing.assert_array_equal(views.backgrounds(0, 1, [5]), direct.backgrounds(0, 1, [5]))
    np.testing.assert_allclose(views.motion(0), direct.motion(0), rtol=1e-5)


def test_mistakes_are_told(tmp_path: Path, data_dir: Path) -> None:
    with pytest.raises(InputError, match=r"unknown subject 'S2'.*known are: S1, S5"):
        open_figures(Figures(), 32, subjects=["S2"], cache=tmp_path)
    with pytest.raises(InputError, match=r"unknown action 'walkin' \(did you mean 'walking'\?\)"):
        rendered(Figures(actions=["walkin"]), 32)
    (tmp_path / "bad").mkdir()
    broken = tmp_path / "bad" / "walking_01.bvh"
    broken.write_bytes((data_dir / "broken" / "truncated.bvh").read_bytes())
    with pytest.raises(InputError, match=r"walking_01\.bvh: it ends after \d+ of .* mend it or"):
        rendered(Figures(mocap=str(broken.parent)), 32)
    short = tmp_path / "short"
    short.mkdir()
    text = (data_dir / "mocap" / "running_01.bvh").read_text()
    (short / "running_01.bvh").write_text(text)
    with pytest.raises(InputError, match=r"lasts 3\.2 seconds"):
        rendered(Figures(mocap=str(short)), 32)
    with pytest.raises(InputError, match=r"files of running together last less than 3\.2"):
        rendered(Figures(mocap=str(short), actions=["running"]), 32)
