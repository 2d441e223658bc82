"""What the built-in people do: motions made by rule, as directions of bones over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from selfsup_cli.config.joints import MIRRORED, PARENTS
from selfsup_cli.randomness import derive

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfsup_cli.data.bodies import Body

RATE = 50.0
"""Frames per second of everything that is built in."""

_ANKLES = (3, 6)
_ARENA = 1100.0


@dataclass(frozen=True)
class Motion:
    """A motion that any body can do.

    `directions` [T, 17, 3] are unit vectors from the parent of each joint to it, in a world whose z
    is up (of the root: 0). `path` [T, 2] is where the root is above the floor and `lift` [T] how
    high the feet are above it, both in mm, of somebody 1.75 m tall.
    """

    action: str
    directions: NDArray[np.float64]
    path: NDArray[np.float64]
    lift: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.directions)

    def __getitem__(self, frames: slice) -> Motion:
        """Some of its frames."""
        some = (part[frames] for part in (self.directions, self.path, self.lift))
        return Motion(self.action, *some)

    def mirrored(self) -> Motion:
        """The same with left and right exchanged."""
        turned = self.directions[:, MIRRORED] * np.array([-1.0, 1.0, 1.0])
        return Motion(self.action, turned, self.path * np.array([-1.0, 1.0]), self.lift)

    def joints(self, body: Body) -> NDArray[np.float64]:
        """Joints [T, 17, 3] in mm of the world of somebody who does it; the lower foot is on the
        floor, or as high above it as in the motion."""
        joints = np.zeros_like(self.directions)
        for joint, parent in enumerate(PARENTS):
            if joint:
                bone = self.directions[:, joint] * body.lengths[joint]
                joints[:, joint] = joints[:, parent] + bone
        lowest = joints[:, _ANKLES, 2].min(1)
        joints[..., :2] += (self.path * body.scale)[:, None]
        joints[..., 2] += (self.lift * body.scale + body.foot - lowest)[:, None]
        return joints


def yawed(motion: Motion, angle: float) -> Motion:
    """The motion turned about the vertical axis in the middle of the room, by radians."""
    turn = _about(2, np.array([angle]))[0]
    path = motion.path @ turn[:2, :2].T
    return Motion(motion.action, motion.directions @ turn.T, path, motion.lift)


def by_rule(action: str, frames: int, seed: int, *address: int | str) -> Motion:
    """A motion of that name; which of all such is drawn from the seed and the address."""
    g = np.random.default_rng(derive(seed, *address, action, "motion"))
    m = _Making(g, np.arange(frames) / RATE)
    # Nobody stands quite still, and nobody does the same thing twice.
    for name in _ANGLES:
        m.add(name, m.wander(_UNREST.get(name, 4.0)))
    m.add("yaw", g.uniform(0, 360) + m.wander(25.0, slow=True))
    for side in "lr":
        m.add(f"{side}_shoulder_out", 9.0)
        m.add(f"{side}_elbow", 14.0)
        m.add(f"{side}_knee", 6.0)
        m.add(f"{side}_hip", 3.0)
    m.path += np.stack([m.wander(220.0, slow=True), m.wander(220.0, slow=True)], -1)
    _RULES[action](m)
    return Motion(action, _directions(m.angles), m.path, np.maximum(m.lift, 0.0))


class _Making:
    """A motion that is being made: angles of joints in degrees at times `t` [T] in seconds, and
    `path` and `lift` as of a `Motion`."""

    def __init__(self, g: np.random.Generator, t: NDArray[np.float64]) -> None:
        self.g = g
        self.t = t
        self.angles = {name: np.zeros(len(t)) for name in _ANGLES}
        self.path = np.zeros((len(t), 2))
        self.lift = np.zeros(len(t))

    def add(self, name: str, value: NDArray[np.float64] | float) -> None:
        self.angles[name] += value

    def wander(self, most: float, *, slow: bool = False) -> NDArray[np.float64]:
        """A smooth random function of time, mostly within ±`most`."""
        low, high = (0.03, 0.2) if slow else (0.15, 0.9)
        total = np.zeros_like(self.t)
        for _ in range(4):
            total += np.sin(2 * np.pi * (self.g.uniform(low, high) * self.t + self.g.uniform()))
        return total * most / 2.5

    def steps(self, targets: Sequence[float], every: float) -> NDArray[np.float64]:
        """From one of `targets` to the next at random, about once in `every` seconds."""
        count = int(self.t[-1] / (0.6 * every)) + 4
        times = np.cumsum(self.g.uniform(0.6, 1.4, size=count) * every) - every
        values = self.g.choice(np.asarray(targets, np.float64), size=count)
        place = np.clip(np.searchsorted(times, self.t, side="right"), 1, count - 1)
        share = (self.t - times[place - 1]) / (0.7 * (times[place] - times[place - 1]))
        share = np.clip(share, 0, 1)
        share = share * share * (3 - 2 * share)
        moved: NDArray[np.float64] = values[place - 1] * (1 - share) + values[place] * share
        return moved


# -- the motions; angles in degrees


def _gait(
    m: _Making,
    *,
    tempo: float,
    reach: float,
    bend: float,
    elbow: float,
    speed: float,
) -> NDArray[np.float64]:
    phase = 2 * np.pi * (tempo * m.t + m.g.uniform()) + 0.4 * m.wander(1.0, slow=True)
    swing = reach * (1 + 0.1 * m.wander(1.0, slow=True))
    for side, moved in (("r", 0.0), ("l", np.pi)):
        own = phase + moved
        m.add(f"{side}_hip", swing * np.sin(own) + 0.25 * reach)
        m.add(f"{side}_knee", bend * np.clip(np.cos(own - 0.25), 0, None) + 6)
        m.add(f"{side}_shoulder", -0.9 * swing * np.sin(own))
        m.add(f"{side}_elbow", elbow + 0.25 * reach * (1 - np.sin(own)))
    m.add("twist", 6 * np.sin(phase))
    # In a circle that is not quite one, in either sense.
    radius = m.g.uniform(0.65, 1.0) * _ARENA
    turn = float(m.g.choice([-1, 1])) * speed / radius
    around = turn * m.t + m.g.uniform(0, 2 * np.pi) + 0.15 * m.wander(1.0, slow=True)
    m.path += radius * np.stack([np.cos(around), np.sin(around)], -1)
    heading = np.degrees(around) + (0.0 if turn > 0 else 180.0)
    m.angles["yaw"] = heading + 0.3 * m.wander(15.0)
    return phase


def _walking(m: _Making) -> None:
    _gait(
        m, tempo=m.g.uniform(0.75, 1.05), reach=m.g.uniform(22, 30), bend=48, elbow=10,
        speed=m.g.uniform(900, 1300),
    )  # fmt: skip
    m.add("bend", m.g.uniform(0, 6))


def _running(m: _Making) -> None:
    phase = _gait(
        m, tempo=m.g.uniform(1.2, 1.5), reach=m.g.uniform(36, 46), bend=92,
        elbow=70, speed=m.g.uniform(1700, 2300),
    )  # fmt: skip
    m.add("bend", m.g.uniform(6, 14))
    m.lift += 55 * np.clip(np.sin(2 * phase), 0, None)


def _jumping(m: _Making) -> None:
    cycle = (m.g.uniform(0.5, 0.75) * m.t + m.g.uniform() + 0.06 * m.wander(1.0, slow=True)) % 1.0
    crouch = np.exp(-(((cycle - 0.3) / 0.1) ** 2)) + 0.7 * np.exp(-(((cycle - 0.78) / 0.07) ** 2))
    flight = np.clip((cycle - 0.42) / 0.28, 0, 1)
    m.lift += m.g.uniform(220, 380) * 4 * flight * (1 - flight)
    spread = m.g.uniform(0, 28) * np.sin(np.pi * flight)
    high = m.g.uniform(70, 150)
    for side in "lr":
        m.add(f"{side}_hip", 62 * crouch)
        m.add(f"{side}_knee", 92 * crouch)
        m.add(f"{side}_hip_out", spread)
        m.add(f"{side}_shoulder", -38 * crouch + high * np.sin(np.pi * flight))
        m.add(f"{side}_shoulder_out", spread)
        m.add(f"{side}_elbow", 20 * crouch)
    m.add("bend", 26 * crouch)
    m.add("yaw", m.steps(range(-120, 121, 60), 2.5))


def _waving(m: _Making) -> None:
    beat = np.sin(2 * np.pi * (m.g.uniform(0.9, 1.5) * m.t + m.g.uniform()))
    up = m.steps([0.0, 0.5, 1.0], 1.8)
    for side, raised in (("r", up), ("l", m.steps([0.0, 0.0, 1.0], 2.4))):
        m.add(f"{side}_shoulder_out", raised * (95 + 18 * beat))
        m.add(f"{side}_elbow", raised * (55 + 30 * beat))
        m.add(f"{side}_shoulder", raised * 30)
    m.add("lean", 6 * up * beat)
    m.add("yaw", m.steps(range(-90, 91, 45), 3.0))


def _directing(m: _Making) -> None:
    for side in "lr":
        m.add(f"{side}_shoulder", m.steps([0.0, 35.0, 85.0, 130.0], 1.1))
        m.add(f"{side}_shoulder_out", m.steps([0.0, 30.0, 80.0], 1.1))
        m.add(f"{side}_elbow", m.steps([0.0, 35.0, 90.0], 0.9))
        m.add(f"{side}_hip", m.steps([0.0, 0.0, 18.0], 1.6))
    m.add("head_turn", m.steps([-50.0, 0.0, 50.0], 1.5))
    m.add("twist", m.steps([-25.0, 0.0, 25.0], 1.7))
    m.add("yaw", m.steps(range(-120, 121, 40), 2.6))


def _squatting(m: _Making) -> None:
    deep = m.steps([0.0, 0.4, 0.8, 1.0], 1.0)
    forward = m.steps([0.0, 0.5, 1.0], 1.4)
    for side in "lr":
        m.add(f"{side}_hip", 96 * deep)
        m.add(f"{side}_knee", 112 * deep)
        m.add(f"{side}_hip_out", 14 * deep)
        m.add(f"{side}_shoulder", 85 * forward)
        m.add(f"{side}_elbow", m.steps([0.0, 60.0], 1.6))
    m.add("bend", 34 * deep)
    m.add("yaw", m.steps(range(-90, 91, 45), 3.0))


def _boxing(m: _Making) -> None:
    ahead = "r" if m.g.random() < 0.5 else "l"
    for side in "lr":
        # Arms are up; a punch stretches one.
        punch = m.steps([0.0, 0.0, 1.0], 0.55)
        m.add(f"{side}_shoulder", 32 + 48 * punch)
        m.add(f"{side}_elbow", 112 * (1 - punch))
        m.add(f"{side}_hip", 24 if side == ahead else -12)
        m.add(f"{side}_knee", 24)
        m.add("twist", (26 if side == "r" else -26) * punch)
    m.add("bend", 10)
    bounce = np.sin(2 * np.pi * (m.g.uniform(1.2, 1.8) * m.t + m.g.uniform()))
    m.lift += 18 * np.clip(bounce, 0, None)
    m.add("yaw", m.steps(range(-120, 121, 60), 2.0))


def _dancing(m: _Making) -> None:
    for side in "lr":
        m.add(f"{side}_shoulder", 35 + m.wander(55))
        m.add(f"{side}_shoulder_out", 55 + m.wander(45))
        m.add(f"{side}_elbow", 45 + m.wander(40))
        m.add(f"{side}_hip", 14 + m.wander(24))
        m.add(f"{side}_hip_out", 8 + m.wander(10))
        m.add(f"{side}_knee", 26 + m.wander(22))
    for name in ("bend", "lean", "twist"):
        m.add(name, m.wander(16))
    m.add("yaw", m.wander(160, slow=True))
    m.path *= 2


_RULES: dict[str, Callable[[_Making], None]] = {
    "walking": _walking,
    "running": _running,
    "jumping": _jumping,
    "waving": _waving,
    "directing": _directing,
    "squatting": _squatting,
    "boxing": _boxing,
    "dancing": _dancing,
}

_SIDED = ("hip", "hip_out", "knee", "shoulder", "shoulder_out", "elbow")
_ANGLES = (
    "yaw",
    "pitch",
    "roll",
    "bend",
    "lean",
    "twist",
    "nod",
    "head_turn",
    *(f"{side}_{name}" for side in "lr" for name in _SIDED),
)
_UNREST = {"yaw": 0.0, "head_turn": 18.0, "nod": 8.0, "pitch": 2.0, "roll": 2.0}


# -- from angles to directions


def _directions(angles: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Unit vectors [T, 17, 3] of the bones. In the frame of a body x is its right, y ahead, z up;
    positive angles bend limbs ahead, and arms and legs outwards."""
    angles = {name: np.radians(value) for name, value in angles.items()}
    # A knee and an elbow bend one way only.
    for name in ("l_knee", "r_knee", "l_elbow", "r_elbow"):
        angles[name] = np.clip(angles[name], 0.02, 2.5)
    found = np.zeros((len(angles["yaw"]), 17, 3))
    pelvis = _about(2, angles["yaw"]) @ _about(0, -angles["pitch"]) @ _about(1, angles["roll"])
    half = _about(0, -angles["bend"] / 2) @ _about(1, angles["lean"] / 2)
    half = half @ _about(2, angles["twist"] / 2)
    waist = pelvis @ half
    chest = waist @ half
    head = chest @ _about(2, angles["head_turn"]) @ _about(0, -angles["nod"])
    down, up = np.array([0.0, 0.0, -1.0]), np.array([0.0, 0.0, 1.0])
    found[:, 7], found[:, 8] = waist @ up, chest @ up
    found[:, 9] = head @ _unit(0.0, 0.55, 1.0)
    found[:, 10] = head @ _unit(0.0, -0.5, 1.0)
    for side, sign, hip, shoulder in (("r", 1.0, 1, 14), ("l", -1.0, 4, 11)):
        found[:, hip] = pelvis @ np.array([sign, 0.0, 0.0])
        thigh = pelvis @ _about(1, -sign * angles[f"{side}_hip_out"])
        thigh = thigh @ _about(0, angles[f"{side}_hip"])
        found[:, hip + 1] = thigh @ down
        found[:, hip + 2] = thigh @ _about(0, -angles[f"{side}_knee"]) @ down
        found[:, shoulder] = chest @ _unit(sign, 0.0, -0.12)
        arm = chest @ _about(1, -sign * angles[f"{side}_shoulder_out"])
        arm = arm @ _about(0, angles[f"{side}_shoulder"])
        found[:, shoulder + 1] = arm @ down
        found[:, shoulder + 2] = arm @ _about(0, angles[f"{side}_elbow"]) @ down
    return found


def _unit(x: float, y: float, z: float) -> NDArray[np.float64]:
    vector = np.array([x, y, z])
    unit: NDArray[np.float64] = vector / np.linalg.norm(vector)
    return unit


def _about(axis: int, angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotations [T, 3, 3] about one of the axes, counter-clockwise seen from its end."""
    one, two = (axis + 1) % 3, (axis + 2) % 3
    rotation = np.zeros((len(angle), 3, 3))
    rotation[:, axis, axis] = 1
    rotation[:, one, one] = rotation[:, two, two] = np.cos(angle)
    rotation[:, two, one] = np.sin(angle)
    rotation[:, one, two] = -np.sin(angle)
    return rotation
