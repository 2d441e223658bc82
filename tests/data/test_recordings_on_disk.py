"""Recordings as they lie on disk: real fixtures, layouts of others, and what is wrong with some."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy import io

from selfsup_cli.config.multiview import MultiviewData
from selfsup_cli.data.geometry import project, to_camera
from selfsup_cli.data.human36m_cameras import CAMERAS, camera_of
from selfsup_cli.data.multiview import Camera
from selfsup_cli.data.multiview_layouts import find_recordings, is_multiview, open_recordings
from selfsup_cli.data.view_cameras import fitted, read_calibration
from selfsup_cli.data.view_joints import check_joints, swapped_sides
from selfsup_cli.errors import InputError

FRAMES = 6
HEIGHT, WIDTH = 40, 60


def body(frames: int = FRAMES) -> np.ndarray:
    """A standing person of 1.7 m in the world (z up), who moves along x; `[T,17,3]` in mm."""
    heights = [950, 950, 500, 80, 950, 500, 80, 1200, 1450, 1550, 1700, 1450, 1150, 900]
    across = [0, -130, -140, -150, 130, 140, 150, 0, 0, 0, 0, 180, 200, 220]
    heights += [1450, 1150, 900]
    across += [-180, -200, -220]
    ahead = np.zeros(17)
    ahead[[2, 5, 9]] = -40.0  # knees and nose point where the person looks, to -y
    one = np.stack([np.array(across, float), ahead, np.array(heights, float)], -1)
    steps = np.arange(frames)[:, None, None] * np.array([30.0, 0, 0])
    return np.asarray(one + steps)


def calibration() -> dict[str, Any]:
    """Two cameras 4 m before the person and to the side of it, both looking at it."""
    lens = [[60, 0, WIDTH / 2], [0, 60, HEIGHT / 2], [0, 0, 1]]
    front = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
    side = [[0, 1, 0], [0, 0, -1], [-1, 0, 0]]
    return {
        "cameras": {
            "cam1": {
                "width": WIDTH,
                "height": HEIGHT,
                "intrinsics": lens,
                "rotation": front,
                "translation": [0.0, 900.0, 4000.0],
            },
            "cam2": {
                "width": WIDTH,
                "height": HEIGHT,
                "intrinsics": lens,
                "rotation": side,
                "translation": [0.0, 900.0, 4000.0],
            },
        }
    }


def images(folder: Path, numbers: range = range(FRAMES), pattern: str = "{:06d}.png") -> None:
    folder.mkdir(parents=True)
    for number in numbers:
        level = np.full((HEIGHT, WIDTH, 3), 20 + number, np.uint8)
        Image.fromarray(level).save(folder / pattern.format(number))


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """SUBJECT/SEQUENCE with two calibrated cameras, joints and a rate."""
    folder = tmp_path / "mine" / "ann" / "walk 1"
    for name in ("cam1", "cam2"):
        images(folder / name)
    (folder / "recording.json").write_text('{"rate": 50}')
    (folder / "calibration.json").write_text(json.dumps(calibration()))
    np.savez(folder / "joints.npz", joints=body())
    return tmp_path / "mine"


def opened(folder: Path, **settings: Any) -> Any:
    return open_recordings(MultiviewData(source=str(folder), side=32), folder.parent, **settings)


def test_a_folder_of_ones_own(recording: Path) -> None:
    views = opened(recording)
    (one,) = views.recordings
    assert (one.id, one.action, one.frames, one.rate) == ("ann/walk 1", "walk", FRAMES, 50.0)
    assert [camera.name for camera in one.cameras] == ["cam1", "cam2"]
    crops = views.crops(0, 1, [0, 5])
    assert [int(crop.mean()) for crop in crops] == [20, 25]
    poses = views.poses(0, 0, [2])
    assert poses is not None
    # Seen from the front and turned by what the root lies off the axis.
    seen = to_camera(body()[2], one.cameras[0])
    lengths = np.linalg.norm(seen - seen[0], axis=-1)
    np.testing.assert_allclose(np.linalg.norm(poses[0], axis=-1), lengths, rtol=1e-5)
    np.testing.assert_allclose(poses[0, 0], 0, atol=1e-4)
    pixels = views.pixels(0, 0, [2])
    assert pixels is not None
    np.testing.assert_allclose(pixels[0, 0], 16, atol=0.5)


def test_the_fixtures_parse_and_their_joints_land_where_they_are_seen(data_dir: Path) -> None:
    found = find_recordings(str(data_dir / "multiview" / "mmpose-fixtures"))
    assert len(found.recordings) == 8
    cameras = {view.camera.name for one in found.recordings for view in one.views}
    assert cameras == {"54138969", "55011271", "Cam0", "Cam8"}
    for one in found.recordings:
        (view,) = one.views
        joints, pixels = view.annotation.joints, view.annotation.pixels
        assert joints is not None
        assert pixels is not None
        assert not swapped_sides(np.repeat(joints, 5, 0)), one.id
        known = np.isfinite(pixels[0]).all(-1)
        assert known.sum() >= 14
        assert view.camera.intrinsics is not None
        # By a pinhole written out, with the lens' distortion left to a tolerance.
        matrix = view.camera.intrinsics
        plain = joints[0] @ matrix.T
        apart = np.linalg.norm(plain[:, :2] / plain[:, 2:] - pixels[0], axis=-1)
        assert apart[known].max() < 15, one.id
        inside = (pixels[0][known] >= 0) & (pixels[0][known] < view.pictures.width)
        assert inside.mean() > 0.9
    assert any("lacks camera" in note for note in found.notes)


def test_the_published_places_of_cameras_agree_with_the_world(data_dir: Path) -> None:
    folder = data_dir / "multiview" / "mmpose-fixtures" / "h36m"
    said = json.loads((folder / "h36m_coco.json").read_text())
    names = {one["id"]: one["file_name"] for one in said["images"]}
    for one in said["annotations"]:
        name = names[one["image_id"]]
        camera = camera_of(name.split(".")[1].split("_")[0], name.split("_")[0])
        assert camera is not None
        world = np.array(one["keypoints_3d"]).reshape(17, 4)[:, :3] * 1000
        seen = np.array(one["keypoints"]).reshape(17, 3)[:, :2]
        assert np.abs(project(world, camera) - seen).max() < 0.5


def test_qualisys_cameras_stand_around_the_person_and_look_at_it(data_dir: Path) -> None:
    path = data_dir / "multiview" / "single_person" / "calibration" / "Calib.qca.txt"
    cameras = read_calibration(path)
    assert list(cameras) == ["cam01", "cam02", "cam03", "cam04"]
    for camera in cameras.values():
        assert camera.rotation is not None
        assert camera.translation is not None
        stands = -camera.rotation.T @ camera.translation
        ahead, down = camera.rotation[2], camera.rotation[1]
        to_middle = np.array([-500.0, 0.0, 900.0]) - stands
        assert ahead @ to_middle / np.linalg.norm(to_middle) > 0.9
        assert down[2] < -0.8, "they stand upright"
    small = fitted(cameras["cam01"], "cam01", 272, 480)
    assert small.intrinsics is not None
    assert small.intrinsics[0, 0] == pytest.approx(1681.24 / 4, rel=1e-3)


def test_what_h36m_fetch_leaves(tmp_path: Path) -> None:
    root = tmp_path / "processed"
    folder = root / "S9" / "Greeting-1"
    frames = range(1, 26, 5)
    joints, pixels, cameras, numbers = [], [], [], []
    for place, name in enumerate(CAMERAS[:2]):
        images(folder / "imageSequence" / name, frames, "img_{:06d}.jpg")
        seen = np.zeros((5, 32, 3))
        used = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
        camera = camera_of(name, "S9")
        assert camera is not None
        seen[:, used] = to_camera(body(5), camera)
        joints.append(seen)
        pixels.append(np.full((5, 32, 2), float(place)))
        cameras += [int(name)] * 5
        numbers += list(frames)
    with h5py.File(folder / "annot.h5", "w") as file:
        file["pose/3d"], file["pose/2d"] = np.concatenate(joints), np.concatenate(pixels)
        file["camera"], file["frame"] = cameras, numbers
    found = find_recordings(str(root))
    (one,) = found.recordings
    assert (one.id, one.action, one.rate) == ("S9/Greeting-1", "Greeting", 10.0)
    second = one.views[1].annotation
    assert second.joints is not None
    camera = camera_of(CAMERAS[1], "S9")
    assert camera is not None
    np.testing.assert_allclose(second.joints, to_camera(body(5), camera), rtol=1e-5)
    assert second.pixels is not None
    assert (second.pixels == 1).all()
    assert is_multiview(str(root))


def test_videos_of_human36m_and_known_gaps(tmp_path: Path, data_dir: Path) -> None:
    folder = tmp_path / "S11" / "Videos"
    folder.mkdir(parents=True)
    real = data_dir / "multiview" / "single_person" / "videos_small" / "cam01.avi"
    for name in CAMERAS[1:]:
        (folder / f"Directions.{name}.avi").symlink_to(real)
    found = find_recordings(str(tmp_path))
    (one,) = found.recordings
    assert (one.subject, one.sequence) == ("S11", "Directions")
    assert one.views[0].camera.calibrated
    assert any("54138969" in note and "damaged in the original" in note for note in found.notes)


def test_what_mpi_inf_3dhp_leaves(tmp_path: Path, data_dir: Path) -> None:
    folder = tmp_path / "S1" / "Seq2"
    (folder / "imageSequence").mkdir(parents=True)
    real = data_dir / "multiview" / "single_person" / "videos_small" / "cam01.avi"
    lines = ["Skeletool Camera Calibration File V1.0"]
    for number in range(2):
        (folder / "imageSequence" / f"video_{number}.avi").symlink_to(real)
        lines += [f"name          {number}", "  size        272 480"]
        lines += ["  intrinsic   500 0 136 0 0 500 240 0 0 0 1 0 0 0 0 1"]
        lines += ["  extrinsic   1 0 0 0 0 0 -1 900 0 1 0 4000 0 0 0 1"]
    (folder / "camera.calibration").write_text("\n".join(lines))
    seen = np.zeros((100, 28, 3))
    order = (4, 23, 24, 25, 18, 19, 20, 3, 5, 6, 7, 9, 10, 11, 14, 15, 16)
    seen[:, order] = body(100) @ np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]).T + [0, 900, 4000]
    cells = np.empty((2, 1), object)
    flat = np.empty((2, 1), object)
    for number in range(2):
        cells[number, 0] = seen.reshape(100, 84)
        flat[number, 0] = np.full((100, 56), 50.0 + number)
    io.savemat(folder / "annot.mat", {"annot3": cells, "annot2": flat})
    (one,) = find_recordings(str(tmp_path)).recordings
    assert one.id == "S1/Seq2"
    camera = one.views[1].camera
    assert camera.calibrated
    joints = one.views[1].annotation.joints
    assert joints is not None
    np.testing.assert_allclose(joints, to_camera(body(100), camera), rtol=1e-4)


def hdf5(path: Path, change: Callable[[h5py.File], None] | None = None) -> Path:
    with h5py.File(path, "w") as file:
        group = file.create_group("ann/walk")
        group.attrs["rate"] = 25.0
        for name, one in calibration()["cameras"].items():
            camera = group.create_group(name)
            camera["images"] = np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
            for key in ("intrinsics", "rotation", "translation"):
                camera[key] = np.array(one[key], float)
        group["joints"] = body()
        if change is not None:
            change(file)
    return path


def test_one_file_of_recordings(tmp_path: Path) -> None:
    views = opened(hdf5(tmp_path / "mine.h5"))
    (one,) = views.recordings
    assert (one.id, one.rate, one.frames) == ("ann/walk", 25.0, FRAMES)
    assert one.cameras[1].calibrated
    assert views.poses(0, 1, [0]) is not None
    assert is_multiview(str(tmp_path / "mine.h5"))


def _foreign(file: h5py.File) -> None:
    file["ann/walk/cam1"]["pixels"] = h5py.ExternalLink("/etc/passwd", "x")


def _rateless(file: h5py.File) -> None:
    del file["ann/walk"].attrs["rate"]


def _grey(file: h5py.File) -> None:
    del file["ann/walk/cam1/images"]
    file["ann/walk/cam1/images"] = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)


@pytest.mark.parametrize(
    ("change", "said"),
    [(_foreign, "is a link"), (_rateless, "no attribute rate"), (_grey, "uint8")],
)
def test_a_file_that_is_laid_out_otherwise(
    tmp_path: Path, change: Callable[[h5py.File], None], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        opened(hdf5(tmp_path / "mine.h5", change))


# -- what is wrong with some


def change_joints(folder: Path, joints: np.ndarray, **more: Any) -> None:
    np.savez(folder / "ann" / "walk 1" / "joints.npz", joints=joints, **more)


def test_metres_for_millimetres_are_told_and_allowed_where_they_are_said(recording: Path) -> None:
    change_joints(recording, body() / 1000)
    with pytest.raises(InputError, match=r"metres and not millimetres: multiply them by 1000"):
        opened(recording)
    change_joints(recording, body() / 1000, unit="m")
    assert opened(recording).poses(0, 0, [0]) is not None


def test_joints_in_another_order(recording: Path) -> None:
    order = np.random.default_rng(0).permutation(17)
    turning = body(40)
    turning[:, 11:] += np.sin(np.arange(40))[:, None, None] * 90  # arms that move
    with pytest.raises(InputError, match="in another order"):
        check_joints(turning[:, order], "joints")
    with pytest.raises(InputError, match="in another order"):
        check_joints(body(1)[:, order], "joints")
    from selfsup_cli.config.joints import JOINTS

    change_joints(recording, body()[:, order], names=[JOINTS[n] for n in order])
    there = opened(recording).poses(0, 0, [0])
    change_joints(recording, body())
    np.testing.assert_array_equal(there, opened(recording).poses(0, 0, [0]))


def test_left_for_right_is_suspected() -> None:
    from selfsup_cli.config.joints import MIRRORED

    assert not swapped_sides(body())
    assert swapped_sides(body()[:, MIRRORED])


def test_nan_joints(recording: Path) -> None:
    joints = body()
    joints[2, 0] = joints[3, 5] = np.nan
    change_joints(recording, joints)
    poses = opened(recording).poses(0, 0, range(FRAMES))
    assert poses is not None
    assert np.isnan(poses[2]).all(), "without its root a pose has no place"
    assert np.isnan(poses[3]).any(-1).tolist() == [n == 5 for n in range(17)]
    assert np.isfinite(poses[[0, 1, 4, 5]]).all()
    change_joints(recording, np.full_like(joints, np.nan))
    with pytest.raises(InputError, match="all are NaN"):
        opened(recording)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"translation": [0, 900, -4000]}, "does not see the subject.*behind it"),
        ({"translation": [90000.0, 900, 4000]}, "does not see the subject"),
        ({"translation": [0, 0.9, 4.0]}, "metres and not millimetres"),
        ({"rotation": [[1, 0, 0], [0, 2, 0], [0, 0, 1]]}, "is no rotation"),
        ({"intrinsics": [[1, 2], [3, 4]]}, "is not 3×3"),
        ({"focus": 1}, "unknown entry 'focus'"),
    ],
)
def test_a_calibration_that_cannot_be_meant(
    recording: Path, change: dict[str, Any], said: str
) -> None:
    document = calibration()
    document["cameras"]["cam1"] |= change
    (recording / "ann" / "walk 1" / "calibration.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=said):
        opened(recording)


def test_one_camera_only(recording: Path) -> None:
    (recording / "ann" / "walk 1" / "joints.npz").unlink()
    with pytest.raises(InputError, match="one camera only"):
        open_recordings(
            MultiviewData(source=str(recording), side=32, cameras=["cam1"]), recording.parent
        )
    assert len(opened(recording, least_cameras=1).recordings[0].cameras) == 2
    with pytest.raises(InputError, match=r"no camera 'cam3'.*there are cam1, cam2"):
        open_recordings(
            MultiviewData(source=str(recording), side=32, cameras=["cam1", "cam3"]),
            recording.parent,
        )


def test_a_recording_of_which_too_few_cameras_can_be_read_is_left_out(
    recording: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def damage(*places: str) -> None:
        for place in places:
            Image.new("RGB", (9, 9)).save(recording / "ann" / place / "000002.png")

    for camera in ("cam1", "cam2"):
        images(recording / "ann" / "walk 2" / camera)
    damage("walk 2/cam2")
    assert [one.id for one in opened(recording).recordings] == ["ann/walk 1"]
    assert "ann/walk 2 is left out: only cam1 can be read" in caplog.text
    damage("walk 1/cam2")
    with pytest.raises(InputError, match=r"2 of 4 cameras .* cannot be read.*--max-bad"):
        opened(recording)


def test_images_that_not_every_camera_has(recording: Path) -> None:
    (recording / "ann" / "walk 1" / "joints.npz").unlink()
    (recording / "ann" / "walk 1" / "cam2" / "000003.png").unlink()
    views = opened(recording)
    assert views.recordings[0].frames == FRAMES - 1
    for camera in range(2):
        means = [int(crop.mean()) for crop in views.crops(0, camera, range(FRAMES - 1))]
        assert means == [20, 21, 22, 24, 25], "what is shown at a time is of the same number"


def test_cameras_cut_short_or_of_other_rates(tmp_path: Path, data_dir: Path) -> None:
    real = data_dir / "multiview" / "single_person" / "videos_small"
    folder = tmp_path / "event"
    folder.mkdir()
    (folder / "cam1.avi").symlink_to(real / "cam01.avi")
    (folder / "cam2.avi").symlink_to(data_dir / "actions" / "Run" / "v_Run_g01_c01.avi")
    with pytest.raises(InputError, match="different rates"):
        opened(folder)
    images(folder / "cam3")
    (folder / "cam2.avi").unlink()
    with pytest.raises(InputError, match=r"cam3 has 6 frames .*cut short.*cameras=\[cam1\]"):
        opened(folder)


def test_folders_of_other_things_are_not_taken_for_cameras(data_dir: Path, tmp_path: Path) -> None:
    assert not is_multiview(str(data_dir / "actions"))
    assert not is_multiview(str(data_dir / "photos"))
    assert not is_multiview(str(data_dir / "cifar10_lossless.h5"))
    assert is_multiview(str(data_dir / "multiview" / "single_person" / "videos"))
    with pytest.raises(InputError, match="no videos or images"):
        opened(tmp_path)


def test_a_projected_camera_with_a_name_of_its_own_is_kept() -> None:
    camera = fitted(Camera("a", 1000, 1000, np.diag([1.0, 1.0, 1.0])), "b", 1000, 1002)
    assert camera.name == "b"
    assert camera.intrinsics is not None
    np.testing.assert_array_equal(camera.intrinsics, np.eye(3))
