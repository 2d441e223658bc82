"""Built-in videos in which only motion tells the classes apart (`--data motion`).

A textured shape moves over a textured background, with a little grain as of a camera. Its class is
the law by which it moves. Shape, size, colours, textures, place, heading and handedness are drawn
from the same distributions for every law, and the world is a torus: the place in frame t is a
uniformly drawn place plus what the law adds, modulo 1, so it is uniform whatever the law; the same
goes for the angle, and the size of a shape that keeps its size is drawn from the sizes through
which one that swells passes. A single frame is therefore distributed alike in all classes and says
nothing of its class. Within one period (about 48 frames) every moving law covers about the same
way, so that the speed of playback can be told.

Every video is a pure function of (seed, part, index), every frame of the video and its number.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch

from selfsup_cli.data.drawing import Draws, balanced, clouds, grain
from selfsup_cli.data.source import ClipSource, LeftOut, Split
from selfsup_cli.randomness import derive, generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfsup_cli.config.blocks import Motion

    Floats = NDArray[np.floating[Any]]

VERSION = 1  # part of the fingerprint: raise it with any change of what is rendered

PERIOD = 48.0  # frames
WAY = 0.96  # path in one period, in sides of the frame
TEMPO = 0.15  # period and way vary by up to this share
RADIUS = (0.13, 0.24)  # of the shape, in sides of the frame
GRAIN = 10.0  # standard deviation, in grey levels
TURN = 2.0 * math.pi
_CLOUDS = ((3, 45.0), (6, 31.5), (12, 22.5))  # cells, grey levels


@dataclass(frozen=True)
class Pose:
    """How far the law has carried the shape: two displacements in sides of the frame (along and
    across the heading), an angle in turns, and the phase of its swelling in periods."""

    along: Floats | float = 0.0
    across: Floats | float = 0.0
    turns: Floats | float = 0.0
    swell: Floats | float = 0.0


def _accelerate(time: Floats, way: float, hand: float) -> Pose:
    """Starts from rest and gains speed evenly, once in every period."""
    part = time % 1.0
    return Pose(along=way * (time - part + part**2))


def _bounce(time: Floats, way: float, hand: float) -> Pose:
    """Thrown up against gravity and falling back; the heading of this law is always upwards."""
    part = time % 1.0
    return Pose(along=2.0 * way * part * (1.0 - part))


def _drift(time: Floats, way: float, hand: float) -> Pose:
    return Pose(along=way * time)


def _grow_shrink(time: Floats, way: float, hand: float) -> Pose:
    return Pose(swell=time)


def _orbit(time: Floats, way: float, hand: float) -> Pose:
    radius = way / TURN
    return Pose(radius * np.cos(TURN * time), hand * radius * np.sin(TURN * time))


def _oscillate(time: Floats, way: float, hand: float) -> Pose:
    return Pose(along=way / 4.0 * np.sin(TURN * time))


def _spin(time: Floats, way: float, hand: float) -> Pose:
    return Pose(turns=hand * time)


def _zigzag(time: Floats, way: float, hand: float) -> Pose:
    """Straight ahead while going evenly to and fro across, always at the same speed."""
    step = way / math.sqrt(2.0)
    return Pose(step * time, step * np.abs(time % 1.0 - 0.5))


LAWS: dict[str, Callable[[Floats, float, float], Pose]] = {
    "accelerate": _accelerate,
    "bounce": _bounce,
    "drift": _drift,
    "grow-shrink": _grow_shrink,
    "orbit": _orbit,
    "oscillate": _oscillate,
    "spin": _spin,
    "zigzag": _zigzag,
}
CLASSES = tuple(LAWS)


def law_of(seed: int, part: str, index: int) -> int:
    """Class of a video. Each run of as many videos as there are classes has every class once."""
    return balanced(len(CLASSES), index, seed, "motion", part, "laws")


class Scene:
    """One video: everything that is drawn once, and the rendering of any of its frames."""

    def __init__(self, seed: int, part: str, index: int, side: int) -> None:
        law = CLASSES[law_of(seed, part, index)]
        source = generator(seed, "motion", part, index)
        draw = Draws(source, 40)
        self.side = side
        self._law = LAWS[law]
        self._key = derive(seed, "motion", part, index, "grain")

        self._period = PERIOD * draw.between(1 - TEMPO, 1 + TEMPO)
        self._way = WAY * draw.between(1 - TEMPO, 1 + TEMPO)
        self._start = draw.between(0.0, 1.0)
        self._hand = 1.0 if draw.between(-1.0, 1.0) > 0 else -1.0
        heading = draw.between(0.0, TURN)
        self._heading = -TURN / 4 if law == "bounce" else heading
        self._place = (draw.between(0.0, 1.0), draw.between(0.0, 1.0))
        self._angle = draw.between(0.0, TURN)
        self._swell = draw.between(0.0, 1.0)

        self._lobes = 2 + int(draw.between(0.0, 4.0))
        self._depth = np.float32(draw.between(0.12, 0.32))
        self._color = draw.color(40.0, 215.0)
        self._contrast = draw.color(-90.0, 90.0)
        self._frequency = draw.between(1.5, 4.0)
        self._waves = [(draw.between(0.0, TURN), draw.between(0.0, TURN)) for _ in range(2)]
        self._background = np.clip(
            clouds(source, _CLOUDS, side) + draw.color(67.0, 187.0)[..., 0], 12.0, 243.0
        )

    def state(self, frames: NDArray[np.int64]) -> tuple[Floats, Floats, Floats, Floats]:
        """Place (x, y) and radius in sides of the frame, and angle in radians; each `[T]`."""
        time = frames / self._period + self._start
        pose = self._law(time, self._way, self._hand)
        cos, sin = math.cos(self._heading), math.sin(self._heading)
        still = np.zeros(len(frames))
        x = (self._place[0] + pose.along * cos - pose.across * sin + still) % 1.0
        y = (self._place[1] + pose.along * sin + pose.across * cos + still) % 1.0
        low, high = RADIUS
        swell = 0.5 + 0.5 * np.cos(TURN * (self._swell + pose.swell + still))
        return x, y, low * (high / low) ** swell, self._angle + TURN * (pose.turns + still)

    def render(self, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Frames as `[3, T, side, side]`."""
        side, count = self.side, len(frames)
        x, y, radius, angle = self.state(frames)
        # The shape is worked out in a square just large enough for it; `left`, `top` may lie
        # outside of the frame, where the world goes on at the opposite edge.
        square = min(side, math.ceil(2 * side * RADIUS[1] * (1 + float(self._depth))) + 2)
        left = np.floor(x * side - square / 2).astype(np.int64)
        top = np.floor(y * side - square / 2).astype(np.int64)
        pixel = np.arange(square) + 0.5
        across = ((left - x * side)[:, None] + pixel).astype(np.float32)
        down = ((top - y * side)[:, None] + pixel).astype(np.float32)
        alpha, color = self._shape(across, down, radius * side, angle)

        canvas = np.repeat(self._background[:, None], count, axis=1)
        tiled = np.tile(self._background, (1, 2, 2))
        for t in range(count):
            row, column = int(top[t]) % side, int(left[t]) % side
            behind = tiled[:, row : row + square, column : column + square]
            patch = behind + alpha[t] * (color[:, t] - behind)
            for rows, from_row in _wrapped(row, square, side):
                for columns, from_column in _wrapped(column, square, side):
                    canvas[:, t, rows, columns] = patch[:, from_row, from_column]
        self._add_grain(canvas, frames)
        return np.clip(canvas, 0.0, 255.0, out=canvas).astype(np.uint8)

    def _shape(
        self, across: Floats, down: Floats, radius: Floats, angle: Floats
    ) -> tuple[Floats, Floats]:
        """Opacity `[T, n, n]` and colour `[3, T, n, n]` at the pixel offsets `[T, n]` from its
        centre. In polar coordinates of the shape its outline is 1 + depth · cos(lobes · φ)."""
        cos = (np.cos(angle) / radius).astype(np.float32)[:, None]
        sin = (np.sin(angle) / radius).astype(np.float32)[:, None]
        u = (cos * across)[:, None, :] + (sin * down)[:, :, None]
        v = (cos * down)[:, :, None] - (sin * across)[:, None, :]
        distance = np.sqrt(u * u + v * v) + np.float32(1e-6)
        outline = 1 + self._depth * _cos_multiple(self._lobes, u / distance)
        pixels = radius.astype(np.float32)[:, None, None]
        alpha = np.clip((outline - distance) * pixels + np.float32(0.5), 0.0, 1.0)
        texture = np.zeros_like(u)
        for direction, phase in self._waves:
            a = np.float32(0.5 * self._frequency)
            b = np.float32(2.0 * math.cos(direction)), np.float32(2.0 * math.sin(direction))
            texture += np.sin(a * (b[0] * u + b[1] * v) + np.float32(phase))
        return alpha, self._color + self._contrast * (np.float32(0.5) * texture)

    def _add_grain(self, canvas: Floats, frames: NDArray[np.int64]) -> None:
        """Each frame gets its own stretch of one long noise, chosen by a hash of its number."""
        noise = grain(GRAIN)
        size = canvas[:, 0].size
        mixed = np.uint64(self._key) + frames.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        starts = (mixed >> np.uint64(20)) % np.uint64(len(noise) - size)
        for t, start in enumerate(starts.tolist()):
            canvas[:, t] += noise[start : start + size].reshape(canvas[:, t].shape)


def _wrapped(start: int, length: int, side: int) -> Iterator[tuple[slice, slice]]:
    """Pieces of `start … start + length` on a ring of `side`: (where on the ring, which part)."""
    inside = min(length, side - start)
    yield slice(start, start + inside), slice(0, inside)
    if inside < length:
        yield slice(0, length - inside), slice(inside, length)


def _cos_multiple(k: int, cos: Floats) -> Floats:
    """cos(k · φ) from cos(φ), by Chebyshev's recurrence."""
    before, now = np.ones_like(cos), cos
    for _ in range(k - 1):
        before, now = now, 2 * cos * now - before
    return now


class MotionSource(ClipSource):
    """The built-in videos as a `ClipSource`.

    `split` "train" and "test" hold `settings.videos` and `settings.test_videos` videos with seeds
    of their own, "all" both. With `labels=False` neither labels nor classes are given.
    """

    name = "motion"

    def __init__(
        self,
        settings: Motion,
        split: Split,
        labels: bool,
        positions: NDArray[np.int64] | None = None,
    ) -> None:
        """`positions` picks videos out of the training videos followed by the test videos."""
        self.settings = settings
        self.split = split
        if positions is None:
            both = settings.videos + settings.test_videos
            first = settings.videos if split == "test" else 0
            last = settings.videos if split == "train" else both
            positions = np.arange(first, last, dtype=np.int64)
        self._positions = positions
        self.ids: Sequence[str] = _Ids(settings.videos, positions)
        self.num_frames = np.full(len(positions), settings.length, np.int64)
        self.left_out: Sequence[LeftOut] = ()
        self.split_rule = f"test videos rendered apart (seed {settings.seed})"
        self.labels = self._labels() if labels else None
        self.classes = CLASSES if labels else None
        text = (
            f"motion/{VERSION}/{settings.seed}/{settings.length}/{settings.side}/{settings.videos}/"
        )
        self.fingerprint = hashlib.sha256(text.encode() + positions.tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self._positions)

    def read(self, i: int, frames: NDArray[np.int64], size: tuple[int, int] | None) -> torch.Tensor:
        """Render frames (int64 `[T]`, `0 <= f < num_frames[i]`) as uint8 `[3, T, H, W]`."""
        frames = np.asarray(frames, np.int64)
        if frames.size and not 0 <= frames.min() <= frames.max() < self.settings.length:
            raise IndexError(f"frames outside of 0 … {self.settings.length - 1}: {frames.tolist()}")
        part, index = self._address(i)
        scene = Scene(self.settings.seed, part, index, self.settings.side)
        clip = torch.from_numpy(scene.render(frames))
        if size is None or size == (self.settings.side, self.settings.side):
            return clip
        scaled = torch.nn.functional.interpolate(
            clip.transpose(0, 1), size=size, mode="bilinear", antialias=True
        )
        return scaled.transpose(0, 1).contiguous()

    def subset(self, indices: NDArray[np.int64]) -> MotionSource:
        """The videos `indices` (int64, in that order) as a source of its own."""
        chosen = self._positions[np.asarray(indices, np.int64)]
        return MotionSource(self.settings, self.split, self.labels is not None, chosen)

    def _address(self, i: int) -> tuple[str, int]:
        return _address(self.settings.videos, int(self._positions[i]))

    def _labels(self) -> NDArray[np.int64]:
        seed = self.settings.seed
        return np.array([law_of(seed, *self._address(i)) for i in range(len(self))], np.int64)


def _address(training: int, position: int) -> tuple[str, int]:
    """Part and index within it of the video at `position` of all."""
    return ("train", position) if position < training else ("test", position - training)


class _Ids(Sequence[str]):
    """Names of videos, put together when asked for: a source of a million stays small."""

    def __init__(self, training: int, positions: NDArray[np.int64]) -> None:
        self._training = training
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[str]: ...
    def __getitem__(self, i: int | slice) -> str | Sequence[str]:
        if isinstance(i, slice):
            return _Ids(self._training, self._positions[i])
        part, index = _address(self._training, int(self._positions[i]))
        return f"{part}/{index:06d}"
