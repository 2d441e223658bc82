"""The built-in people: how long and how thick their limbs are, and what they wear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from selfsup_cli.randomness import derive

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Length of the bone from the parent of each joint to it, in mm, of somebody 1.75 m tall.
_LENGTHS = np.array(
    [0, 125, 440, 430, 125, 440, 430, 235, 255, 135, 145, 165, 285, 250, 165, 285, 250], np.float64
)
_MEAN_HEIGHT = 1750.0
_FOOT = 75.0

_SKINS = ((236, 196, 168), (222, 172, 136), (190, 138, 102), (141, 96, 66), (98, 66, 48))
_HAIRS = ((38, 28, 24), (92, 60, 34), (176, 132, 76), (60, 60, 62), (150, 72, 38))
_CLOTHES = (
    (176, 48, 46),
    (44, 84, 158),
    (52, 122, 74),
    (208, 176, 70),
    (226, 226, 222),
    (58, 58, 66),
    (122, 74, 140),
    (196, 116, 56),
    (86, 148, 164),
)
_TROUSERS = ((40, 46, 66), (74, 74, 78), (120, 102, 78), (34, 36, 38), (92, 108, 132))
_SHOES = ((30, 30, 32), (212, 212, 208), (104, 68, 44))

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Body:
    """One person.

    `lengths` [17] are of the bones that end in each joint, in mm; `girth` multiplies the thickness
    of everything. Sleeves and trouser legs end at shares of the limbs: 1 at wrist and ankle, 0.5 at
    elbow and knee. `stripes` are of the shirt; 0 for none.
    """

    name: str
    lengths: NDArray[np.float64]
    girth: float
    skin: Color
    hair: Color
    shirt: Color
    second: Color
    trousers: Color
    shoes: Color
    sleeve: float
    leg: float
    stripes: int
    long_hair: bool

    @property
    def leg_length(self) -> float:
        """From hip to ankle, in mm."""
        return float(self.lengths[2] + self.lengths[3])

    @property
    def foot(self) -> float:
        """How far the ankles of somebody standing are above the floor, in mm."""
        return _FOOT * self.scale

    @property
    def scale(self) -> float:
        """Size beside somebody 1.75 m tall."""
        return self.leg_length / float(_LENGTHS[2] + _LENGTHS[3])


def body_of(subject: str, seed: int) -> Body:
    """The body of that name: always the same of the same `seed`."""
    g = np.random.default_rng(derive(seed, subject, "body"))
    height = float(np.clip(g.normal(1740, 85), 1540, 1930))
    proportions = np.clip(g.normal(1.0, 0.035, size=17), 0.9, 1.1)
    # What is left is as long as what is right.
    for left, right in ((4, 1), (5, 2), (6, 3), (11, 14), (12, 15), (13, 16)):
        proportions[left] = proportions[right]
    lengths = _LENGTHS * (height / _MEAN_HEIGHT) * proportions
    shirt, second = g.choice(len(_CLOTHES), size=2, replace=False)
    return Body(
        name=subject,
        lengths=lengths,
        girth=float(np.clip(g.normal(1.0, 0.1), 0.82, 1.25)) * height / _MEAN_HEIGHT,
        skin=_SKINS[g.integers(len(_SKINS))],
        hair=_HAIRS[g.integers(len(_HAIRS))],
        shirt=_CLOTHES[shirt],
        second=_CLOTHES[second],
        trousers=_TROUSERS[g.integers(len(_TROUSERS))],
        shoes=_SHOES[g.integers(len(_SHOES))],
        sleeve=float(g.choice([0.3, 0.55, 1.0])),
        leg=float(g.choice([0.4, 0.6, 1.0, 1.0])),
        stripes=int(g.choice([0, 0, 3, 5])),
        long_hair=bool(g.random() < 0.4),
    )
