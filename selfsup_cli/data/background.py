"""The empty scene of a fixed camera, and what stands out from it (thesis, section 6.2.2).

The scene is the median of each value over time. It is found in one pass over the pictures and in
memory that does not grow with their number: a few pictures from all over the recording tell about
where the median of each value lies, and then every picture that passes by is counted against the
sixteen grey levels around that place. Where the median lies among them, it is exact; elsewhere
(where the subject stood still half of the time) the nearest of the sixteen stands for it, and the
share of such values is told.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import max_pool2d

THRESHOLD = 30
"""Grey levels by which some colour of a pixel must differ from the scene (methods, 4.2)."""

SEEDS = 15
_LEVELS = 16
_BLOCK = 1 << 15


@dataclass(frozen=True)
class Scene:
    """The empty scene: `picture` uint8 `[3,H,W]`, the median of `frames` pictures.

    `clipped` is the share of its values whose median lies outside of what was counted.
    """

    picture: NDArray[np.uint8]
    frames: int
    clipped: float


class RunningMedian:
    """The (lower) median of each value of pictures that are shown to it one after the other."""

    def __init__(self, seeds: NDArray[np.uint8]) -> None:
        """`seeds` uint8 `[K,3,H,W]`, K odd and about `SEEDS`: pictures from all over the recording.

        They only tell where to count.
        """
        self._shape = seeds.shape[1:]
        middle = np.partition(seeds.reshape(len(seeds), -1), len(seeds) // 2, axis=0)
        about = middle[len(seeds) // 2].astype(np.int16)
        self._base = np.clip(about - _LEVELS // 2, 0, 256 - _LEVELS).astype(np.uint8)
        self._counts = np.zeros((_LEVELS + 1, self._base.size), np.uint16)
        self._recent = np.zeros((_LEVELS + 1, self._base.size), np.uint8)
        self.frames = 0

    def add(self, pictures: NDArray[np.uint8]) -> None:
        """Count pictures, uint8 `[N,3,H,W]`. Raises OverflowError for more than 65,535 of them."""
        values = pictures.reshape(len(pictures), -1)
        for row in values:
            if self.frames == np.iinfo(np.uint16).max:
                raise OverflowError("too many pictures for a median")
            # In blocks that stay in the cache.
            for start in range(0, len(row), _BLOCK):
                part = slice(start, start + _BLOCK)
                value, base = row[part], self._base[part]
                recent = self._recent[:, part]
                above = value - base  # wraps for what lies below: it is then larger than any level
                recent[_LEVELS] += value < base
                for level in range(_LEVELS):
                    recent[level] += above == level
            self.frames += 1
            if self.frames % 255 == 0:
                self._settle()

    def result(self) -> Scene:
        """The median of all pictures that were added, of which there must be some."""
        self._settle()
        rank = (self.frames - 1) // 2
        reached = self._counts[_LEVELS].astype(np.int32)
        low = reached > rank
        level = np.zeros(self._base.size, np.int16)
        for counts in self._counts[:_LEVELS]:
            reached += counts
            level += reached <= rank
        high = level == _LEVELS
        level[high] = _LEVELS - 1
        picture = (self._base + np.where(low, 0, level)).astype(np.uint8)
        return Scene(picture.reshape(self._shape), self.frames, float((low | high).mean()))

    def _settle(self) -> None:
        self._counts += self._recent
        self._recent[:] = 0


def foreground(
    pictures: NDArray[np.uint8], scene: NDArray[np.uint8], threshold: int = THRESHOLD
) -> NDArray[np.bool_]:
    """Which pixels of pictures (uint8 `[N,3,H,W]`) are not of the scene, bool `[N,H,W]`.

    Those that differ from `scene` (uint8 `[3,H,W]` or `[N,3,H,W]`) by more than `threshold` in some
    colour; then what is smaller than 3×3 pixels goes (opening), and gaps of that size are filled
    (closing).
    """
    difference = np.abs(pictures.astype(np.int16) - scene.astype(np.int16)).max(-3)
    return opened_closed(difference > threshold)


def opened_closed(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Opening, then closing of masks `[N,H,W]` by 3×3 pixels; outside of them is neither."""
    grown = torch.from_numpy(masks.astype(np.float32))[:, None]
    opened = _dilated(_eroded(grown))
    closed = _eroded(_dilated(opened))
    return closed[:, 0].numpy() > 0


def _dilated(masks: torch.Tensor) -> torch.Tensor:
    return max_pool2d(masks, 3, 1, 1)


def _eroded(masks: torch.Tensor) -> torch.Tensor:
    # Padding never wins a maximum, so the border of a picture takes nothing away.
    return -max_pool2d(-masks, 3, 1, 1)
