"""Motion capture in BVH files: skeletons, their motion, and where it puts every joint."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from selfsup_cli.errors import BadMediaError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_BYTES = 512 << 20
_MOST_JOINTS = 1000
_TOKEN = re.compile(r"\S+")
_AXES = "XYZ"


@dataclass(frozen=True)
class Joint:
    """A joint of a skeleton: its parent (-1 of the root), its place beside it in the pose in which
    nothing is turned, and its channels, as `Zrotation`."""

    name: str
    parent: int
    offset: tuple[float, float, float]
    channels: tuple[str, ...]


@dataclass(frozen=True)
class Bvh:
    """A skeleton, ends of limbs included, and `values` [T, C] of the channels of all its joints in
    their order: degrees, and whatever unit of length the file has. `rate` is in frames per
    second."""

    joints: tuple[Joint, ...]
    values: NDArray[np.float64]
    rate: float

    def place(self, name: str) -> int | None:
        """Which joint has that name, in whatever case."""
        wanted = name.casefold()
        names = (joint.name.rpartition(":")[2].casefold() for joint in self.joints)
        return next((place for place, one in enumerate(names) if one == wanted), None)

    def rest(self) -> NDArray[np.float64]:
        """Joints [J, 3] in the pose in which nothing is turned."""
        found = np.zeros((len(self.joints), 3))
        for place, joint in enumerate(self.joints):
            found[place] = joint.offset
            if joint.parent >= 0:
                found[place] += found[joint.parent]
        return found

    def moved(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Joints [T, J, 3] over time, and how they are turned [T, J, 3, 3]."""
        count = len(self.values)
        places = np.zeros((count, len(self.joints), 3))
        turned = np.zeros((count, len(self.joints), 3, 3))
        first = 0
        for number, joint in enumerate(self.joints):
            shift = np.broadcast_to(np.array(joint.offset), (count, 3)).copy()
            own = np.broadcast_to(np.eye(3), (count, 3, 3))
            for channel in joint.channels:
                axis, value = _AXES.index(channel[0]), self.values[:, first]
                first += 1
                if channel.endswith("position"):
                    shift[:, axis] = value
                else:
                    own = own @ _about(axis, np.radians(value))
            if joint.parent < 0:
                places[:, number], turned[:, number] = shift, own
            else:
                above = turned[:, joint.parent]
                moved = np.einsum("tij,tj->ti", above, shift)
                places[:, number] = places[:, joint.parent] + moved
                turned[:, number] = above @ own
        return places, turned


def read_bvh(path: Path) -> Bvh:
    """Read a file. Raises BadMediaError, which says where it ends or what of it cannot be."""
    name = str(path)
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise BadMediaError(name, f"it is larger than {_MOST_BYTES >> 20} MiB")
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise BadMediaError(name, "it is not text, so no BVH file") from error
    except OSError as error:
        raise BadMediaError(name, error.strerror or "it cannot be read") from error
    head, found, rest = text.partition("MOTION")
    words = _Words(name, head)
    if words.take() != "HIERARCHY":
        raise BadMediaError(name, "it does not begin with HIERARCHY, so it is no BVH file")
    if words.take() != "ROOT":
        raise BadMediaError(name, "its skeleton does not begin with ROOT")
    joints: list[Joint] = []
    _skeleton(words, joints)
    if not found:
        raise BadMediaError(name, "it ends after its skeleton, before MOTION")
    return Bvh(tuple(joints), *_motion(name, rest, sum(len(one.channels) for one in joints)))


class _Words:
    """The words of the skeleton, one after the other."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self._text = text
        self._words = _TOKEN.finditer(text)
        self._at = 0

    def take(self) -> str:
        word = next(self._words, None)
        if word is None:
            line = self._text.count("\n") + 1
            raise BadMediaError(self.name, f"it ends in the middle of its skeleton, at line {line}")
        self._at = word.start()
        return word.group()

    def numbers(self, count: int) -> tuple[float, ...]:
        found = []
        for _ in range(count):
            word = self.take()
            try:
                found.append(float(word))
            except ValueError:
                raise self.bad(f"'{word[:20]}' is no number") from None
        if not np.isfinite(found).all():
            raise self.bad("a number is not finite")
        return tuple(found)

    def bad(self, what: str) -> BadMediaError:
        line = self._text.count("\n", 0, self._at) + 1
        return BadMediaError(self.name, f"line {line}: {what}")


def _skeleton(words: _Words, joints: list[Joint]) -> None:
    """Add the root, whose name comes next, and all that hangs on it."""
    open_joints: list[int] = []
    name = words.take()
    while True:
        if len(joints) >= _MOST_JOINTS:
            raise words.bad(f"more than {_MOST_JOINTS} joints")
        if (word := words.take()) != "{":
            raise words.bad(f"'{word[:20]}' where {{ should open the joint {name}")
        if (word := words.take()) != "OFFSET":
            raise words.bad(f"'{word[:20]}' where the OFFSET of {name} should be")
        x, y, z = words.numbers(3)
        parent = open_joints[-1] if open_joints else -1
        open_joints.append(len(joints))
        joints.append(Joint(name, parent, (x, y, z), ()))
        while True:
            word = words.take()
            if word == "CHANNELS":
                joints[-1] = Joint(name, parent, (x, y, z), _channels(words))
            elif word == "JOINT":
                name = words.take()
                break
            elif word == "End":
                words.take()
                name = f"{joints[open_joints[-1]].name}_end"
                break
            elif word == "}":
                open_joints.pop()
                if not open_joints:
                    return
            else:
                raise words.bad(f"'{word[:20]}' is nothing that a skeleton has")


def _channels(words: _Words) -> tuple[str, ...]:
    (count,) = words.numbers(1)
    if count != int(count) or not 0 <= count <= 6:
        raise words.bad(f"a joint cannot have {count:g} channels")
    found = []
    for _ in range(int(count)):
        channel = words.take()
        if channel[:1] not in _AXES or channel[1:] not in ("position", "rotation"):
            raise words.bad(f"'{channel[:20]}' is no channel")
        found.append(channel)
    return tuple(found)


def _motion(name: str, text: str, channels: int) -> tuple[NDArray[np.float64], float]:
    """What follows MOTION: values [T, C] and frames per second."""
    head = re.match(r"\s*Frames:\s*(\d+)\s+Frame Time:\s*([0-9.eE+-]+)[ \t]*\r?\n?", text)
    if head is None:
        raise BadMediaError(name, "it has no 'Frames:' and 'Frame Time:' after MOTION")
    frames = int(head[1])
    try:
        seconds = float(head[2])
    except ValueError:
        seconds = 0.0
    if not 1e-4 <= seconds <= 10:
        raise BadMediaError(name, f"its frame time of '{head[2][:20]}' s cannot be")
    if frames < 1 or channels < 1:
        raise BadMediaError(name, "it has no motion")
    words = text[head.end() :].split()
    whole = len(words) // channels
    if whole < frames:
        raise BadMediaError(name, f"it ends after {whole} of the {frames} frames that it announces")
    try:
        values = np.array(words[: frames * channels], np.float64).reshape(frames, channels)
    except ValueError as error:
        raise BadMediaError(name, f"its motion holds what is no number ({error})") from error
    if not np.isfinite(values).all():
        raise BadMediaError(name, "its motion holds numbers that are not finite")
    return values, 1 / seconds


def _about(axis: int, angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotations [T, 3, 3] about one of the axes."""
    one, two = (axis + 1) % 3, (axis + 2) % 3
    rotation = np.zeros((len(angle), 3, 3))
    rotation[:, axis, axis] = 1
    rotation[:, one, one] = rotation[:, two, two] = np.cos(angle)
    rotation[:, two, one] = np.sin(angle)
    rotation[:, one, two] = -np.sin(angle)
    return rotation
