"""Motion capture: kinematics against SciPy's rotations, and files that are broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from selfsup_cli.config.joints import BONES
from selfsup_cli.data.bodies import body_of
from selfsup_cli.data.bvh import read_bvh
from selfsup_cli.data.mocap import Mocap, joined, motion_of
from selfsup_cli.data.motions import yawed
from selfsup_cli.errors import BadMediaError, InputError

SMALL = """HIERARCHY
ROOT Hips
{
  OFFSET 1 2 3
  CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
  JOINT mixamorig:Leg
  {
    OFFSET 0 -4 1
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 0 -5 0.5
    }
  }
  JOINT Back
  {
    OFFSET 0 2 0
    CHANNELS 1 Yrotation
  }
}
MOTION
Frames: 2
Frame Time: 0.02
0 0 0 0 0 0 0 0 0 0
10 20 30 25 -40 15 60 -20 33 70
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.bvh"
    path.write_text(SMALL)
    return path


def test_a_skeleton_moves_as_scipy_says(small: Path) -> None:
    bvh = read_bvh(small)
    assert [one.name for one in bvh.joints] == [
        "Hips",
        "mixamorig:Leg",
        "mixamorig:Leg_end",
        "Back",
    ]
    assert bvh.place("leg") == 1
    assert bvh.place("arm") is None
    assert bvh.rate == pytest.approx(50)
    places, turned = bvh.moved()
    # Channels are applied in their order, each in the frame that those before it have turned.
    hips = Rotation.from_euler("ZYX", [25, -40, 15], degrees=True)
    leg = hips * Rotation.from_euler("ZXY", [60, -20, 33], degrees=True)
    root = np.array([10.0, 20.0, 30.0])
    at_leg = root + hips.apply([0, -4, 1])
    np.testing.assert_allclose(places[1, 0], root)
    np.testing.assert_allclose(places[1, 1], at_leg)
    np.testing.assert_allclose(places[1, 2], at_leg + leg.apply([0, -5, 0.5]))
    np.testing.assert_allclose(places[1, 3], root + hips.apply([0, 2, 0]))
    np.testing.assert_allclose(turned[1, 1], leg.as_matrix(), atol=1e-12)
    # Where nothing is turned, joints lie as in the pose of rest, but for the root's own place.
    rest = bvh.rest()
    np.testing.assert_allclose(places[0], rest - rest[0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text[: text.index("End Site")], "middle of its skeleton, at line 10"),
        (lambda text: text[: text.index("MOTION")], "before MOTION"),
        (lambda text: text[:-20], "ends after 1 of the 2 frames"),
        (lambda text: text.replace("OFFSET 0 2 0", "OFFSET 0 x 0"), "line 17: 'x' is no number"),
        (lambda text: text.replace("70\n", "nan\n"), "not finite"),
        (lambda text: text.replace("70\n", "seven\n"), "what is no number"),
        (lambda text: text.replace("Frame Time: 0.02", "Frame Time: 0"), "cannot be"),
        (lambda text: text.replace("Frames: 2", "Frames: two"), "no 'Frames:'"),
        (lambda text: text.replace("HIERARCHY", "<html>"), "no BVH file"),
        (lambda text: text.replace("1 Yrotation", "1 Wrotation"), "'Wrotation' is no channel"),
        (lambda text: text.replace("JOINT Back", "BONE Back"), "'BONE' is nothing"),
        (lambda text: text.replace("CHANNELS 1 Yr", "CHANNELS 99 Yr"), "cannot have 99 channels"),
    ],
)
def test_a_broken_file_is_told_in_a_sentence(
    small: Path, change: Callable[[str], str], said: str
) -> None:
    small.write_text(change(SMALL))
    with pytest.raises(BadMediaError, match=said):
        read_bvh(small)


def test_bytes_are_no_motion(small: Path) -> None:
    small.write_bytes(b"\xff\xfe\x00\x01" * 50)
    with pytest.raises(BadMediaError, match="not text"):
        read_bvh(small)


@pytest.mark.parametrize(
    ("name", "said"),
    [("truncated.bvh", r"ends after \d+ of the \d+ frames"), ("truncated_hierarchy.bvh", "middle")],
)
def test_truncated_motion_capture(data_dir: Path, name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        motion_of(data_dir / "broken" / name, "walking")


def test_a_skeleton_without_arms_is_no_person(small: Path) -> None:
    with pytest.raises(InputError, match=r"has no right hip \(RightUpLeg or rThigh or RightHip\)"):
        motion_of(small, "small")


@pytest.fixture(scope="module")
def walking(data_dir: Path) -> Path:
    return data_dir / "mocap" / "walking_01.bvh"


def test_walking_is_done_upright_by_any_body(walking: Path, data_dir: Path) -> None:
    motion = motion_of(walking, "walking")
    # 172 frames at 60 Hz are 2.85 seconds.
    assert len(motion) == pytest.approx(2.85 * 50, abs=2)
    for seed in (0, 5):
        body = body_of("S1", seed)
        joints = motion.joints(body)
        for parent, joint in BONES:
            length = np.linalg.norm(joints[:, joint] - joints[:, parent], axis=1)
            np.testing.assert_allclose(length, body.lengths[joint], rtol=1e-6)
        head, pelvis, feet = joints[:, 10, 2], joints[:, 0, 2], joints[:, (3, 6), 2]
        assert (head > pelvis).all()
        assert (pelvis > feet.max(1)).all()
        assert feet.min() == pytest.approx(body.foot, abs=1e-6)
        # A person who walks looks where they go.
        across = joints[:, 1] - joints[:, 4]
        ahead = np.cross([0, 0, 1], across)[:, :2]
        step = np.gradient(motion.path, axis=0)
        assert ((ahead * step).sum(1) > 0).mean() > 0.9
    another = motion_of(data_dir / "mocap" / "indian_04.bvh", "indian")
    assert (another.joints(body_of("S5", 0))[:, 10, 2] > 700).all()


def test_mirrored_twice_is_the_same_motion(walking: Path) -> None:
    motion = motion_of(walking, "walking")
    again = motion.mirrored().mirrored()
    np.testing.assert_allclose(again.directions, motion.directions)
    np.testing.assert_allclose(again.path, motion.path)
    body = body_of("S1", 0)
    plain, mirrored = motion.joints(body), motion.mirrored().joints(body)
    np.testing.assert_allclose(mirrored[:, 13] * [-1, 1, 1], plain[:, 16], atol=1e-6)


def test_motions_are_joined_without_a_jump(walking: Path) -> None:
    motion = motion_of(walking, "walking")
    whole = joined([motion, yawed(motion, 2.0)])
    assert len(whole) == 2 * len(motion) + 20
    body = body_of("S1", 0)
    step = np.linalg.norm(np.diff(whole.joints(body), axis=0), axis=2).max(1)
    usual = np.linalg.norm(np.diff(motion.joints(body), axis=0), axis=2).max()
    assert step.max() < 1.5 * usual


def test_a_folder_is_performed_by_everybody_in_another_way(tmp_path: Path, walking: Path) -> None:
    (tmp_path / "walking_01.bvh").write_text(walking.read_text())
    with pytest.raises(InputError, match="no folder"):
        Mocap(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no BVH file"):
        Mocap(tmp_path / "empty")
    alone = Mocap(tmp_path)
    assert (alone.actions, alone.too_short) == ((), ("walking",))
    (tmp_path / "walking_02.bvh").write_text(walking.read_text())
    both = Mocap(tmp_path)
    assert both.actions == ("walking",)
    one = both.performed("walking", 0, 160, 0, "S1")
    assert len(one) == 160
    assert one.action == "walking"
    same, other = (both.performed("walking", 0, 160, 0, name) for name in ("S1", "S9"))
    np.testing.assert_array_equal(one.directions, same.directions)
    assert np.abs(one.directions - other.directions).max() > 0.1
    assert both.mark != alone.mark
