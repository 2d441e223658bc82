"""Which views make pairs: at what times, of which cameras (section 6.2.1).

What anchor *i* of epoch *e* is, is a pure function of (seed, *e*, *i*). Gaps in time are counted in
frames at 50 a second, as in the thesis, and translated for recordings of another rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from selfsup_cli.config.multiview import RATE
from selfsup_cli.data.loader import SourceDataset
from selfsup_cli.data.source import LeftOut
from selfsup_cli.errors import InputError
from selfsup_cli.randomness import generator

if TYPE_CHECKING:
    from selfsup_cli.config.multiview import Pairs
    from selfsup_cli.data.multiview import Recording, Views


@dataclass(frozen=True)
class Stretch:
    """Frames `first` … `last` - 1 of a recording (its number among all)."""

    recording: int
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first


@dataclass(frozen=True)
class Anchor:
    """A moment and what is paired with it.

    By the first camera at `time` (the anchor), by the second at the same time (synchronised), and
    by the second at `later`, which may also be earlier (not synchronised).
    """

    recording: int
    first: int
    second: int
    time: int
    later: int


def gap_range(rate: float, min_gap: int, max_gap: int) -> tuple[int, int]:
    """The smallest and the largest gap in frames of a recording whose gap at 50 Hz lies strictly
    between `min_gap` and `max_gap`."""
    return math.floor(min_gap * rate / RATE) + 1, math.ceil(max_gap * rate / RATE) - 1


def in_frames(gap: float, rate: float) -> int:
    """A gap at 50 Hz in frames of a recording; a gap is never none."""
    return max(1, round(gap * rate / RATE))


def at_rate(gap: int, rate: float) -> float:
    """A gap in frames of a recording as one at 50 Hz."""
    return gap * RATE / rate


def mean_motion(travelled: np.ndarray, time: int, others: np.ndarray) -> np.ndarray:
    """Mean change of a frame between `time` and each of `others`, of the sums `travelled`."""
    distance = np.abs(travelled[others] - travelled[time])
    return np.asarray(distance / np.maximum(np.abs(others - time), 1))


class Anchors:
    """The anchors of a part of some views; a source for the loader.

    Sample *i* of an epoch is one of `every` successive frames at which there is something to pair:
    frames with another one, between `min_gap` and `max_gap` from it, and with motion on the way
    there. Raises InputError where nothing can be paired, saying why.
    """

    labels = None
    classes = None
    attributes = None
    many = "anchors"

    def __init__(
        self,
        views: Views,
        stretches: Sequence[Stretch],
        settings: Pairs,
        *,
        name: str,
        split: str,
        split_rule: str,
        threshold: float | None = None,
    ) -> None:
        """`threshold` is the change in grey levels below which a frame counts as motionless; by
        default the share `settings.still` of the mean of `stretches`."""
        self.views = views
        self.stretches = tuple(stretches)
        self.settings = settings
        self.name = name
        self.split = split
        self.split_rule = split_rule
        self.fingerprint = views.fingerprint
        self.left_out: Sequence[LeftOut] = ()
        _require_cameras(views, self.stretches, settings)
        motions = {one.recording: views.motion(one.recording) for one in self.stretches}
        self.threshold = (
            settings.still * _mean(motions, self.stretches) if threshold is None else threshold
        )
        self._travelled = {
            number: np.cumsum(motion, dtype=np.float64) for number, motion in motions.items()
        }
        self._usable = [self._moving(one) for one in self.stretches]
        self.still_frames = sum(map(len, self.stretches)) - sum(map(len, self._usable))
        self._ends = np.cumsum([len(found) for found in self._usable])
        if not self._ends.size or not self._ends[-1]:
            raise self._nothing()
        self.ids: Sequence[str] = _Ids(self)

    def __len__(self) -> int:
        return int(-(-self._ends[-1] // self.settings.every))

    def recording(self, number: int) -> Recording:
        """A recording by its number."""
        return self.views.recordings[number]

    def moment(self, place: int) -> tuple[Stretch, int]:
        """The `place`-th of all frames that can be anchors."""
        number = int(np.searchsorted(self._ends, place, side="right"))
        before = int(self._ends[number - 1]) if number else 0
        return self.stretches[number], int(self._usable[number][place - before])

    def anchor(self, seed: int, epoch: int, index: int, purpose: str = "pair") -> Anchor:
        """Anchor `index` of an epoch. Cameras and times are drawn evenly among what fits."""
        g = generator(seed, epoch, index, purpose)
        every = self.settings.every
        first = index * every
        room = min(every, int(self._ends[-1]) - first)
        stretch, time = self.moment(first + int(torch.randint(room, (), generator=g)))
        cameras = len(self.recording(stretch.recording).cameras)
        one = int(torch.randint(cameras, (), generator=g))
        two = one
        if self.settings.views == "multi":
            two = (one + 1 + int(torch.randint(cameras - 1, (), generator=g))) % cameras
        others = self.others(stretch, time)
        later = int(others[int(torch.randint(len(others), (), generator=g))])
        return Anchor(stretch.recording, one, two, time, later)

    def others(self, stretch: Stretch, time: int) -> np.ndarray:
        """The frames, int64 ascending, that can be paired with `time` as not synchronised."""
        low, high = self.gaps(stretch.recording)
        found = np.arange(max(time - high, stretch.first), min(time + high + 1, stretch.last))
        found = found[np.abs(found - time) >= low]
        moved = mean_motion(self._travelled[stretch.recording], time, found)
        return np.asarray(found[moved >= self.threshold])

    def gaps(self, recording: int) -> tuple[int, int]:
        """The smallest and the largest gap, in frames of a recording."""
        settings = self.settings
        return gap_range(self.recording(recording).rate, settings.min_gap, settings.max_gap)

    def _moving(self, stretch: Stretch) -> np.ndarray:
        """The frames of a stretch, int64, for which there is another one."""
        low, high = self.gaps(stretch.recording)
        count = len(stretch)
        travelled = self._travelled[stretch.recording][stretch.first : stretch.last]
        usable = np.zeros(count, bool)
        for gap in range(low, min(high, count - 1) + 1):
            moved = (travelled[gap:] - travelled[:-gap]) / gap >= self.threshold
            usable[: count - gap] |= moved
            usable[gap:] |= moved
            if usable.all():
                break
        return np.flatnonzero(usable) + stretch.first

    def _nothing(self) -> InputError:
        longest = max(map(len, self.stretches), default=0)
        low = min((self.gaps(one.recording)[0] for one in self.stretches), default=0)
        if longest <= low:
            return InputError(
                f"{self.name}: unsynchronised pairs take frames that are more than "
                f"{self.settings.min_gap} of 1/{RATE} s apart, {low} frames here, and the longest "
                f"recording of the {self.split} part has {longest}; give longer ones, or use "
                "--min-gap",
                kind="too-short",
            )
        return InputError(
            f"{self.name}: nothing moves in the {self.split} part: no two of its frames differ by "
            f"{self.threshold:.2g} grey levels a frame on the way from one to the other; use "
            "--set pairs.still=0 to pair them all the same",
            kind="no-motion",
        )


class _Ids(Sequence[str]):
    """Names of anchors, made when they are asked for."""

    def __init__(self, anchors: Anchors) -> None:
        self._anchors = anchors

    def __len__(self) -> int:
        return len(self._anchors)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        stretch, time = self._anchors.moment(int(index) * self._anchors.settings.every)
        return f"{self._anchors.recording(stretch.recording).id}@{time}"


def _mean(motions: dict[int, np.ndarray], stretches: Sequence[Stretch]) -> float:
    """Mean change of a frame of some stretches; the first frame of a recording has none."""
    parts = [motions[one.recording][max(one.first, 1) : one.last] for one in stretches]
    together = np.concatenate(parts) if parts else np.zeros(0)
    return float(together.mean()) if together.size else 0.0


def _require_cameras(views: Views, stretches: Sequence[Stretch], settings: Pairs) -> None:
    if settings.views == "single":
        return
    for one in stretches:
        recording = views.recordings[one.recording]
        if len(recording.cameras) < 2:
            raise InputError(
                f"{recording.id} was seen by one camera, and pairs take two; add the others, or "
                "use --views single as a control",
                kind="one-camera",
            )


class AnchorDataset(SourceDataset):
    """What is read of anchors: `views` uint8 `[1, 3, 3, S, S]` (anchor, partner, later), `index`.

    Where backgrounds are removed, `masks` bool `[1, 3, S, S]`; where they are substituted,
    `backgrounds` uint8 `[1, 4, 3, S, S]`, each of another random moment of any recording.
    """

    MANY = "anchors"

    def __init__(self, anchors: Anchors, seed: int, purpose: str = "pair") -> None:
        super().__init__(anchors)
        self.anchors = anchors
        self.seed = seed
        self.purpose = purpose

    def _sample(self, epoch: int, index: int) -> dict[str, Any]:
        anchors, settings = self.anchors, self.anchors.settings
        found = anchors.anchor(self.seed, epoch, index, self.purpose)
        sample = read_anchor(anchors.views, found, masks=settings.background != "keep")
        if settings.background in ("substitute", "mixed"):
            g = generator(self.seed, epoch, index, "backgrounds")
            sample["backgrounds"] = torch.stack([self._background(g) for _ in range(4)])[None]
        return {**sample, "index": torch.tensor(index)}

    def _background(self, g: torch.Generator) -> torch.Tensor:
        """The empty scene of a random view."""
        anchors = self.anchors
        stretch, time = anchors.moment(int(torch.randint(int(anchors._ends[-1]), (), generator=g)))
        cameras = len(anchors.recording(stretch.recording).cameras)
        camera = int(torch.randint(cameras, (), generator=g))
        scene = anchors.views.backgrounds(stretch.recording, camera, [time])
        if scene is None:
            raise _unknown(anchors.recording(stretch.recording), "--background remove")
        return torch.from_numpy(np.ascontiguousarray(scene[0]))


def read_anchor(views: Views, anchor: Anchor, *, masks: bool) -> dict[str, Any]:
    """`views` uint8 `[1, 3, 3, S, S]` of an anchor and, with `masks`, `masks` bool `[1, 3, S, S]`.

    Raises InputError where the subject cannot be told from the scene, BadMediaError for what
    cannot be read.
    """
    asked = ((anchor.first, [anchor.time]), (anchor.second, [anchor.time, anchor.later]))
    crops = [views.crops(anchor.recording, camera, times) for camera, times in asked]
    sample: dict[str, Any] = {"views": torch.from_numpy(np.concatenate(crops))[None]}
    if masks:
        found = [views.masks(anchor.recording, camera, times) for camera, times in asked]
        known = [one for one in found if one is not None]
        if len(known) < len(found):
            raise _unknown(views.recordings[anchor.recording], "--background keep")
        sample["masks"] = torch.from_numpy(np.concatenate(known))[None]
    return sample


def _unknown(recording: Recording, instead: str) -> InputError:
    return InputError(
        f"the background of {recording.id} is not known, so the subject cannot be told from it; "
        f"use {instead}",
        kind="no-background",
    )
