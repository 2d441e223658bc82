"""What the built-in people are made of: parts around their 17 joints, in the colours they wear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from selfsup_cli.data.raycast import Parts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfsup_cli.data.bodies import Body, Color

_DARK = 0.72
_FLAT = 0.66


def parts_of(joints: NDArray[np.float64], body: Body) -> Parts:
    """The parts of somebody whose joints [N, 17, 3] are where a camera has them, in mm."""
    up = _unit(joints[:, 8] - joints[:, 0])
    across = _unit(joints[:, 1] - joints[:, 4])
    ahead = _unit(np.cross(up, across))
    shoulders = _unit(joints[:, 14] - joints[:, 11])
    chest = _unit(np.cross(_unit(joints[:, 8] - joints[:, 7]), shoulders))
    making = _Making(joints, body.girth)
    _torso(making, body, ahead, chest, shoulders, up)
    for side in (_Side(1, 14), _Side(4, 11)):
        _leg(making, body, side, ahead)
        _arm(making, body, side)
    _head(making, body, shoulders)
    return making.parts()


@dataclass(frozen=True)
class _Side:
    """The first joint of a leg and of an arm."""

    hip: int
    shoulder: int


class _Making:
    """Parts that are being put together."""

    def __init__(self, joints: NDArray[np.float64], girth: float) -> None:
        self.joints = joints
        self.girth = girth
        self._made: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
        self._flat: list[NDArray[np.float64]] = []
        self._plain: list[tuple[float, float, float, float, float]] = []
        self._colors: list[tuple[Color, Color]] = []

    def add(
        self,
        start: NDArray[np.float64],
        end: NDArray[np.float64],
        radii: tuple[float, float],
        color: Color,
        second: Color | None = None,
        *,
        split: float = 2.0,
        stripes: float = 0.0,
        flat: NDArray[np.float64] | None = None,
        flatness: float = _FLAT,
    ) -> None:
        """A part from `start` to `end` [N, 3]; radii in mm of somebody of ordinary girth."""
        self._made.append((start, end))
        self._flat.append(np.zeros_like(start) if flat is None else flat)
        one, two = (radius * self.girth for radius in radii)
        self._plain.append((one, two, 1.0 if flat is None else flatness, split, stripes))
        self._colors.append((color, color if second is None else second))

    def parts(self) -> Parts:
        plain = np.array(self._plain, np.float32)
        return Parts(
            starts=np.stack([start for start, _ in self._made], 1).astype(np.float32),
            ends=np.stack([end for _, end in self._made], 1).astype(np.float32),
            radii=plain[:, :2],
            flat=np.stack(self._flat, 1).astype(np.float32),
            flatness=plain[:, 2],
            colors=np.array(self._colors, np.float32),
            splits=plain[:, 3],
            stripes=plain[:, 4],
        )


def _torso(
    m: _Making,
    body: Body,
    ahead: NDArray[np.float64],
    chest: NDArray[np.float64],
    shoulders: NDArray[np.float64],
    up: NDArray[np.float64],
) -> None:
    joints, g = m.joints, m.girth
    pelvis, spine, thorax = joints[:, 0], joints[:, 7], joints[:, 8]
    hips = (joints[:, 1] - joints[:, 4]) * 0.22
    m.add(pelvis - hips, pelvis + hips, (126, 126), body.trousers, flat=ahead, flatness=0.84)
    m.add(pelvis + 25 * up, spine, (136, 132), body.shirt, body.second, flat=ahead,
          stripes=body.stripes)  # fmt: skip
    top = thorax - 60 * g * _unit(thorax - spine)
    m.add(spine, top, (134, 152), body.shirt, body.second, flat=chest, stripes=body.stripes)
    reach = 0.62 * (joints[:, 14] - joints[:, 11]) / 2
    low = thorax - 38 * g * _unit(thorax - spine)
    m.add(low - reach, low + reach, (74, 74), body.shirt, flat=chest, flatness=0.85)


def _leg(m: _Making, body: Body, side: _Side, ahead: NDArray[np.float64]) -> None:
    hip, knee, ankle = (m.joints[:, side.hip + i] for i in range(3))
    m.add(hip, knee, (88, 57), body.trousers, body.skin, split=2 * body.leg)
    m.add(knee, ankle, (56, 38), body.trousers, body.skin, split=2 * body.leg - 1)
    shin = _unit(ankle - knee)
    toes = _unit(ahead - 0.85 * shin * (ahead * shin).sum(-1, keepdims=True))
    sole = ankle + 32 * m.girth * shin
    m.add(sole - 28 * m.girth * toes, sole + 135 * m.girth * toes, (40, 30), body.shoes)


def _arm(m: _Making, body: Body, side: _Side) -> None:
    shoulder, elbow, wrist = (m.joints[:, side.shoulder + i] for i in range(3))
    m.add(shoulder, elbow, (57, 42), body.shirt, body.skin, split=2 * body.sleeve)
    m.add(elbow, wrist, (41, 29), body.shirt, body.skin, split=2 * body.sleeve - 1)
    along = _unit(wrist - elbow)
    m.add(wrist + 10 * along, wrist + 95 * m.girth * along, (34, 27), body.skin)


def _head(m: _Making, body: Body, shoulders: NDArray[np.float64]) -> None:
    joints, g = m.joints, m.girth
    thorax, nose, top = joints[:, 8], joints[:, 9], joints[:, 10]
    axis = _unit(top - thorax)
    out = nose - thorax
    # The nose is before the line from thorax to top; that is where the face looks.
    face = _unit(out - axis * (out * axis).sum(-1, keepdims=True))
    middle = top - 105 * g * axis
    m.add(thorax - 25 * axis, middle - 35 * g * axis, (58, 54), body.skin)
    m.add(middle - 34 * g * axis + 16 * g * face, middle + 22 * g * axis, (76, 88), body.skin)
    m.add(nose + 4 * g * face, nose + 24 * g * face + 12 * g * axis, (17, 13), body.skin)
    back = middle - 20 * g * face
    low = back - (95 if body.long_hair else 5) * g * axis - 14 * g * face
    m.add(low, back + 22 * g * axis, (74 if body.long_hair else 82, 95), body.hair)
    side = np.cross(face, axis)
    dark: Color = (30, 26, 26)
    eyes = middle + 82 * g * face - 4 * g * axis
    for sign in (-30, 30):
        eye = eyes + sign * g * side
        m.add(eye, eye + 4 * g * side, (11, 11), dark)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: NDArray[np.float64] = vectors / np.maximum(length, 1e-9)
    return unit
