"""Transformations of time as sequences of frame indices (thesis, section 5.2.1).

Every function maps a number of frames `n`, parameters and a generator on the CPU to an int64 array
of `frames` indices in `[0, n)`. No pixels are involved: only the chosen frames need decoding. A
playback speed κ keeps every 2^κ-th frame and needs `n >= frames * 2^κ`, else ValueError is raised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfsup_cli.config.temporal import TimeTransformations

    Indices = NDArray[np.int64]

Periodic = Literal["thesis", "prose", "released"]
Start = Literal["random", "earliest"]
Warp = Literal["released", "thesis"]

_THESIS_LONGEST_STEP = 7
_TEST_STARTS = 32


@dataclass(frozen=True, eq=False)
class TimedClip:
    """One transformed clip: its kind, its speed label κ (0 for random and warp), its frames."""

    kind: str
    speed: int
    frames: Indices


def max_speed(n: int, frames: int, speeds: int) -> int:
    """κ_max, the fastest of `speeds` speeds that a video of `n` frames can fill a clip at.

    κ_max = min(speeds - 1, ⌊log2(n / frames)⌋). Raises ValueError if `n < frames`.
    """
    _require(n, frames, 0)
    return min(speeds - 1, (n // frames).bit_length() - 1)


def speed_indices(n: int, kappa: int, frames: int, g: torch.Generator) -> Indices:
    """ρ + [0, 2^κ, 2·2^κ, …]: the video played 2^κ times faster, from a random frame ρ."""
    _require(n, frames, kappa)
    step = 1 << kappa
    return _integer(0, n - frames * step, g) + step * np.arange(frames, dtype=np.int64)


def random_indices(n: int, frames: int, g: torch.Generator) -> Indices:
    """ρ + a random permutation of [0, 1, …]: neighbouring frames in shuffled order."""
    _require(n, frames, 0)
    start = _integer(0, n - frames, g)
    order: Indices = torch.randperm(frames, generator=g).numpy()
    return start + order


def periodic_indices(
    n: int,
    kappa: int,
    frames: int,
    g: torch.Generator,
    variant: Periodic = "thesis",
    start: Start = "random",
) -> Indices:
    """Forward at speed κ up to a random turning point, then back.

    `thesis` and `prose` draw the turning point s uniformly from 2·2^κ < s < (frames - 3)·2^κ and
    place the clip anywhere that fits (`start="random"`) or, reading the thesis' ρ literally, at the
    first place that fits (`"earliest"`). `released` is the author's code: a grid of frames - 2
    steps there and, shifted, back, of which a random window of `frames` is taken.
    """
    _require(n, frames, kappa)
    step = 1 << kappa
    if variant == "released":
        offsets = _released_periodic(step, frames, g)
        low, high = 0, n - (frames - 1) * step
    else:
        turn = _integer(2 * step + 1, (frames - 3) * step - 1, g)
        offsets = periodic_offsets(kappa, turn, frames, variant)
        low, high = max(0, -int(offsets.min())), n - 1 - int(offsets.max())
    return offsets + (low if start == "earliest" else _integer(low, high, g))


def periodic_offsets(
    kappa: int, turn: int, frames: int, variant: Literal["thesis", "prose"]
) -> Indices:
    """The index set V²_κ before ρ is added, for a turning point `turn` (s in the thesis).

    With s̄ = ⌊s / 2^κ⌋ and δ = s - s̄·2^κ, the frames 0, 2^κ, …, s̄·2^κ are followed by
    (s̄ - j)·2^κ + δ for j = 1, 2, …. `prose` sub-samples the sequence 0 … s, s - 1, s - 2, … as the
    text of the section describes it, which shifts the way back by 2δ instead and shows the turning
    frame twice where 2δ = 2^κ.
    """
    step = 1 << kappa
    peak, delta = divmod(turn, step)
    shift = delta if variant == "thesis" else 2 * delta
    k = np.arange(frames, dtype=np.int64)
    return np.where(k <= peak, k * step, (2 * peak - k) * step + shift)


def _released_periodic(step: int, frames: int, g: torch.Generator) -> Indices:
    there = step * np.arange(frames - 2, dtype=np.int64)
    # The author's code also draws a shift of 0 at normal speed, which shows the turning frame twice
    # and gives the class away.
    shift = 1 if step == 1 else _integer(1, step - 1, g)
    both = np.concatenate([there, there[::-1] + shift])
    first = _integer(0, len(both) - frames, g)
    return both[first : first + frames]


def warp_indices(
    n: int, kappa_max: int, frames: int, g: torch.Generator, variant: Warp = "released"
) -> Indices:
    """Frames in order, with a random number of frames skipped between any two.

    `released`: steps drawn from {1 … 2^κ_max} inside a random window of frames·2^κ_max frames; for
    κ_max <= 1 a random subset of the video, in order. `thesis`: steps drawn from {0 … 7}, so that
    frames repeat; the longest step shrinks in videos too short for it.
    """
    _require(n, frames, kappa_max)
    if variant == "thesis":
        longest = min(_THESIS_LONGEST_STEP, (n - 1) // (frames - 1))
        steps = torch.randint(0, longest + 1, (frames - 1,), generator=g).numpy()
        offsets = np.zeros(frames, dtype=np.int64)
        offsets[1:] = np.cumsum(steps)
        return offsets + _integer(0, n - 1 - int(offsets[-1]), g)
    if kappa_max >= 2:
        window = frames << kappa_max
        start = _integer(0, n - window, g)
        steps = torch.randint(1, (1 << kappa_max) + 1, (frames,), generator=g).numpy()
        # The sum overshoots the window by one frame if every step is the longest.
        offsets = np.cumsum(steps, dtype=np.int64).clip(max=window - 1)
        return start + offsets
    # Where length, and not `speeds`, bounds κ_max, this window is the whole video.
    window = min(n, (frames << (kappa_max + 1)) - 1)
    start = _integer(0, n - window, g)
    chosen = torch.randperm(window, generator=g)[:frames].sort().values
    subset: Indices = chosen.numpy()
    return start + subset


def draw(n: int, settings: TimeTransformations, g: torch.Generator) -> list[TimedClip]:
    """One clip of each of `settings.kinds`, in that order, from a video of `n` frames.

    One speed κ ~ U{0 … κ_max} is drawn and shared by the speed and the periodic clip; random and
    warp count as κ = 0. Raises ValueError if the video is shorter than a clip.
    """
    frames = settings.frames
    kappa_max = max_speed(n, frames, settings.speeds)
    kappa = _integer(0, kappa_max, g)
    clips = []
    for kind in settings.kinds:
        if kind == "speed":
            clip = TimedClip(kind, kappa, speed_indices(n, kappa, frames, g))
        elif kind == "random":
            clip = TimedClip(kind, 0, random_indices(n, frames, g))
        elif kind == "periodic":
            indices = periodic_indices(
                n, kappa, frames, g, settings.periodic, settings.periodic_start
            )
            clip = TimedClip(kind, kappa, indices)
        else:
            clip = TimedClip(kind, 0, warp_indices(n, kappa_max, frames, g, settings.warp))
        clips.append(clip)
    return clips


def random_clip(n: int, frames: int, max_skip: int, g: torch.Generator) -> Indices:
    """A clip from anywhere in the video, for training on labels: `[frames]`.

    Every `skip`-th frame is kept, skip = max(1, min(⌊n / frames⌋, max_skip)); ρ ~ U{0 … n −
    frames·skip}. A video shorter than a clip is repeated from its beginning.
    """
    if n < frames:
        return np.arange(frames, dtype=np.int64) % n
    skip = max(1, min(n // frames, max_skip))
    return _integer(0, n - frames * skip, g) + skip * np.arange(frames, dtype=np.int64)


def evenly_spaced_clips(n: int, frames: int, max_skip: int, count: int | None) -> Indices:
    """Clips that cover a video for evaluation: indices `[clips, frames]`, without randomness.

    Every `skip`-th frame is kept, skip = max(1, min(⌊n / frames⌋, max_skip)). `count=None` is the
    protocol of the author's test: every start 0, d, 2d, … that leaves room for frames·skip frames,
    d = max(1, ⌊starts / 32⌋), which makes 32 to 63 clips and fewer of short videos. A number asks
    for at most so many, spread from the first start to the last (the middle one for 1). A video
    shorter than a clip is repeated from its beginning to fill a single one.
    """
    if n < 1 or frames < 1 or max_skip < 1 or (count is not None and count < 1):
        raise ValueError(f"no clips of {frames} frames, {count} of them, from {n} frames")
    if n < frames:
        return (np.arange(frames, dtype=np.int64) % n)[None]
    skip = max(1, min(n // frames, max_skip))
    starts = n - frames * skip + 1
    if count is None:
        first = np.arange(0, starts, max(starts // _TEST_STARTS, 1), dtype=np.int64)
    elif count == 1:
        first = np.array([(starts - 1) // 2], dtype=np.int64)
    else:
        k = min(count, starts)
        first = np.arange(k, dtype=np.int64) * (starts - 1) // max(k - 1, 1)
    return first[:, None] + skip * np.arange(frames, dtype=np.int64)


def _integer(low: int, high: int, g: torch.Generator) -> int:
    """Uniform in {low … high}."""
    return int(torch.randint(low, high + 1, (), generator=g))


def _require(n: int, frames: int, kappa: int) -> None:
    if kappa < 0 or n < frames << kappa:
        raise ValueError(f"{n} frames are too few for a clip of {frames} at speed {kappa}")
