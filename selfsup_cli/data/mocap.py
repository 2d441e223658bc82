"""Motions for the built-in people from motion capture: a folder of BVH files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from selfsup_cli.config.joints import JOINTS, PARENTS
from selfsup_cli.data.bvh import Bvh, read_bvh
from selfsup_cli.data.motions import RATE, Motion, yawed
from selfsup_cli.errors import BadMediaError, InputError
from selfsup_cli.randomness import derive
from selfsup_cli.runs.atomic import file_sha256

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What skeletons call the joints that are looked for, the first that there is.
_NAMES = {
    1: ("RightUpLeg", "rThigh", "RightHip"),
    2: ("RightLeg", "rShin", "RightKnee"),
    3: ("RightFoot", "rFoot", "RightAnkle"),
    4: ("LeftUpLeg", "lThigh", "LeftHip"),
    5: ("LeftLeg", "lShin", "LeftKnee"),
    6: ("LeftFoot", "lFoot", "LeftAnkle"),
    7: ("Spine", "Chest", "Spine1"),
    9: ("Head",),
    11: ("LeftArm", "lShldr", "LeftShoulder"),
    12: ("LeftForeArm", "lForeArm", "LeftElbow"),
    13: ("LeftHand", "lHand", "LeftWrist"),
    14: ("RightArm", "rShldr", "RightShoulder"),
    15: ("RightForeArm", "rForeArm", "RightElbow"),
    16: ("RightHand", "rHand", "RightWrist"),
}
_LEG = 870.0
_ARENA = 1300.0
_JOIN = 0.4
_SHORTEST = 3.2


class Mocap:
    """The BVH files of a folder, by the actions that their names begin with.

    `walking_01.bvh` and `walking_02.bvh` are two performances of walking. Raises InputError for a
    folder without any, and for a file that cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder} of motion capture", kind="mocap")
        files = sorted(folder.rglob("*.bvh"))
        if not files:
            raise InputError(f"{folder} holds no BVH file (.bvh)", kind="mocap")
        self._motions: dict[str, list[Motion]] = {}
        marks = []
        for file in files:
            action = re.sub(r"([_-]?\d+)+$", "", file.stem) or file.stem
            self._motions.setdefault(action, []).append(motion_of(file, action))
            marks.append(f"{file.relative_to(folder).as_posix()} {file_sha256(file)}")
        self.mark = "\n".join(marks)

    @property
    def actions(self) -> tuple[str, ...]:
        """The actions of which there is enough, in order of their names."""
        enough = _SHORTEST * RATE
        return tuple(
            action
            for action, motions in sorted(self._motions.items())
            if sum(len(one) for one in motions) >= enough
        )

    @property
    def too_short(self) -> tuple[str, ...]:
        """Those of which all files together last less than 3.2 seconds."""
        return tuple(sorted(set(self._motions) - set(self.actions)))

    def performed(self, action: str, number: int, frames: int, seed: int, subject: str) -> Motion:
        """An action as a subject does it: from the file `number` (in turn) on, and the next ones
        where that is too short, up to `frames`; at its own tempo, towards another side, and in half
        of all cases mirrored."""
        motions = self._motions[action]
        g = np.random.default_rng(derive(seed, subject, action, number, "mocap"))
        tempo, mirrored = float(g.uniform(0.9, 1.1)), bool(g.random() < 0.5)
        parts: list[Motion] = []
        total = 0
        for k in range(len(motions)):
            part = _slower(motions[(number + k) % len(motions)], tempo)
            parts.append(part.mirrored() if mirrored else part)
            total += len(part) + (round(_JOIN * RATE) if k else 0)
            if total >= frames:
                break
        whole = joined(parts)
        first = int(g.integers(0, max(1, len(whole) - frames + 1)))
        return yawed(whole[first : first + frames], float(g.uniform(0, 2 * np.pi)))


def motion_of(path: Path, action: str) -> Motion:
    """The motion of a file, at 50 frames per second. Raises InputError with one sentence."""
    try:
        return _motion(path, read_bvh(path), action)
    except BadMediaError as error:
        raise InputError(
            f"{path}: {error.reason}; mend it or take it out of the folder", kind="mocap"
        ) from error


def _motion(path: Path, bvh: Bvh, action: str) -> Motion:
    places, missing = {}, []
    for joint, names in _NAMES.items():
        found = next((at for at in map(bvh.place, names) if at is not None), None)
        if found is None:
            missing.append(f"{JOINTS[joint]} ({' or '.join(names)})")
        else:
            places[joint] = found
    if missing:
        raise BadMediaError(str(path), f"its skeleton has no {', '.join(missing)}")
    seen, turned = bvh.moved()
    rest = bvh.rest()
    across = rest[places[1]] - rest[places[4]]
    above = rest[places[9]] - (rest[places[1]] + rest[places[4]]) / 2
    upright = int(np.abs(above).argmax())
    if upright == 0 or not np.linalg.norm(across):
        raise BadMediaError(str(path), "its skeleton does not stand upright, along y or z")
    up = np.zeros(3)
    up[upright] = np.sign(above[upright])
    ahead = _unit(np.cross(up, across))
    joints = np.zeros((len(seen), 17, 3))
    for joint, place in places.items():
        joints[:, joint] = seen[:, place]
    joints[:, 0] = (joints[:, 1] + joints[:, 4]) / 2
    middle = (joints[:, 11] + joints[:, 14]) / 2
    half = np.linalg.norm(joints[:, 14] - joints[:, 11], axis=-1, keepdims=True) / 2
    joints[:, 8] = middle + 0.12 * half * _unit(middle - joints[:, 7])
    head = turned[:, places[9]]
    face, crown = head @ ahead, head @ up
    directions = np.zeros_like(joints)
    for joint, parent in enumerate(PARENTS):
        if joint not in (0, 9, 10):
            directions[:, joint] = _unit(joints[:, joint] - joints[:, parent])
    directions[:, 9] = _unit(_unit(joints[:, 9] - joints[:, 8]) + 0.55 * face)
    directions[:, 10] = _unit(crown - 0.5 * face)
    legs = np.linalg.norm(joints[:, 1:4] - joints[:, :3], axis=-1)[:, 1:].sum(1)
    scale = _LEG / float(np.median(legs))
    if upright == 1:
        directions = _z_up(directions)
        joints = _z_up(joints)
    lowest = joints[:, (3, 6), 2].min(1) * scale
    lift = np.maximum(lowest - np.percentile(lowest, 10), 0)
    motion = Motion(action, directions, joints[:, 0, :2] * scale, lift)
    return _held(_resampled(motion, bvh.rate / RATE))


def _z_up(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([points[..., 0], -points[..., 2], points[..., 1]], -1)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: NDArray[np.float64] = vectors / np.maximum(length, 1e-9)
    return unit


def _resampled(motion: Motion, step: float) -> Motion:
    """The same at every `step`-th frame, which may be a fraction."""
    count = len(motion)
    times = np.arange(0, count - 1 + 1e-9, step) if count > 1 else np.zeros(1)
    low = np.minimum(times.astype(np.int64), max(count - 2, 0))
    high = np.minimum(low + 1, count - 1)
    share = times - low
    turned = motion.directions[low] * (1 - share)[:, None, None]
    turned = _unit(turned + motion.directions[high] * share[:, None, None])
    path = motion.path[low] * (1 - share)[:, None] + motion.path[high] * share[:, None]
    lift = motion.lift[low] * (1 - share) + motion.lift[high] * share
    return Motion(motion.action, turned, path, lift)


def _slower(motion: Motion, tempo: float) -> Motion:
    return _resampled(motion, tempo)


def _held(motion: Motion) -> Motion:
    """The same around the middle of the room, its way made shorter where it leads out of it."""
    low, high = motion.path.min(0), motion.path.max(0)
    path = motion.path - (low + high) / 2
    reach = float(np.abs(path).max())
    path = path * min(1.0, _ARENA / max(reach, 1.0))
    return Motion(motion.action, motion.directions, path, motion.lift)


def joined(parts: Sequence[Motion]) -> Motion:
    """Motions one after the other: each begins where and in the direction in which the one before
    has ended, after a transition of 0.4 seconds. Raises ValueError without any."""
    if not parts:
        raise ValueError("there is no motion")
    whole = parts[0]
    for part in parts[1:]:
        part = yawed(part, _heading(whole, -1) - _heading(part, 0))
        share = (np.arange(round(_JOIN * RATE)) + 1.0) / (round(_JOIN * RATE) + 1)
        share = share * share * (3 - 2 * share)
        between = (
            whole.directions[-1] * (1 - share)[:, None, None]
            + part.directions[0] * share[:, None, None]
        )
        lift = whole.lift[-1] * (1 - share) + part.lift[0] * share
        stay = np.repeat(whole.path[-1:], len(share), 0)
        whole = Motion(
            whole.action,
            np.concatenate([whole.directions, _unit(between), part.directions]),
            np.concatenate([whole.path, stay, part.path - part.path[0] + whole.path[-1]]),
            np.concatenate([whole.lift, lift, part.lift]),
        )
    return _held(whole)


def _heading(motion: Motion, frame: int) -> float:
    """Into which direction the hips look, as an angle about z."""
    right = motion.directions[frame, 1] - motion.directions[frame, 4]
    return float(np.arctan2(right[1], right[0]))
