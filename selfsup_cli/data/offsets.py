"""By how much two recordings of one event are apart in time, and how sure that is.

A curve says of every offset d how well frame t of the first goes with frame t + d of the second,
over all t. How its highest point moves when stretches of time are drawn anew (a bootstrap over
blocks) is the interval of the offset; where that is wide, or the point at the edge of what was
searched, or no higher than chance would have it, the offset cannot be told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selfsup_cli.randomness import generator

Floats = NDArray[np.float64]

_REPEATS = 500
_BLOCKS = 20
_LEAST_BLOCK = 4
_LEAST_OVERLAP = 0.4
_SPIKE = 5  # frames over which a median removes what lasts one frame, as key frames of a codec do
_WIDE = 0.15  # seconds by which the interval may reach to either side
_CHANCE = 0.01
_TREND = 4.0
_RIVALS = 0.05

CHANNELS = 5
"""Heights at which motion is told apart."""


@dataclass(frozen=True)
class Offset:
    """What a curve tells.

    `lags` int64 `[L]` in frames and `scores` `[L]`, NaN where too little overlaps; frame t of the
    first recording goes with frame t + `best` of the second. `peak` is the same between frames,
    `low` and `high` are its 95 % interval. `doubt` says why it cannot be told, or is empty.
    """

    lags: NDArray[np.int64]
    scores: Floats
    best: int
    peak: float
    low: float
    high: float
    doubt: str

    @property
    def score(self) -> float:
        """That of the best offset."""
        return float(self.scores[self.lags == self.best][0])


def searched(first: int, second: int, most: int) -> NDArray[np.int64]:
    """The offsets that are tried between recordings of `first` and `second` frames: up to `most`
    frames, as long as enough of the shorter one overlaps."""
    shorter = min(first, second)
    least = max(_LEAST_BLOCK, round(_LEAST_OVERLAP * shorter))
    low, high = max(-most, -(first - least)), min(most, second - least)
    return np.arange(low, high + 1)


def energy(profile: NDArray[np.float32], rate: float) -> Floats:
    """How much moves at which height, `[T,CHANNELS]`, as signals that views of all sides share.

    `profile` is the motion of stripes from top to bottom (grey levels a frame, `[T,R]`). Stripes
    are put together into channels of the same share of all motion, the upper ones first: a head
    is above knees from wherever it is seen. Each is the root of its energy, without single spikes
    and without what changes over more than `_TREND` seconds.
    """
    motion = np.asarray(profile, np.float64).copy()
    if len(motion) > 1:
        motion[0] = motion[1]
    windows = np.lib.stride_tricks.sliding_window_view
    padded = np.pad(motion, ((_SPIKE // 2, _SPIKE // 2), (0, 0)), mode="edge")
    motion = np.median(windows(padded, _SPIKE, axis=0), -1)
    # What moves when least moves is noise.
    motion = np.maximum(motion - np.quantile(motion, 0.05, axis=0), 0)
    shares = np.cumsum(motion.sum(0)) / max(motion.sum(), 1e-12)
    channel = np.minimum((shares - shares[0] / 2) * CHANNELS, CHANNELS - 1).astype(int)
    signals = np.stack([motion[:, channel == n].sum(1) for n in range(CHANNELS)], 1) ** 0.5
    width = 2 * round(_TREND * rate / 2) + 1
    if width < len(signals):
        padded = np.pad(signals, ((width // 2, width // 2), (0, 0)), mode="reflect")
        signals = signals - windows(padded, width, axis=0).mean(-1)
    return np.asarray(signals)


def by_motion(first: Floats, second: Floats, most: int, rate: float, seed: int = 0) -> Offset:
    """The offset of two sets of signals (see `energy`) by the mean correlation of what overlaps.

    A correlation over less counts for less: it is compared by how far it is from chance. Of that,
    the number of independent frames is taken from the data (Bartlett), and the number of offsets
    that are tried is allowed for.
    """
    lags = searched(len(first), len(second), most)
    blocks, count = _blocks(len(first))
    sums = np.zeros((len(lags), count, first.shape[1], 6))
    for row, lag in enumerate(lags.tolist()):
        start, stop = max(0, -lag), min(len(first), len(second) - lag)
        x, y = first[start:stop], second[start + lag : stop + lag]
        columns = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], -1)
        np.add.at(sums[row], blocks[start:stop], columns)
    found = _found(lags, sums, _correlation, rate, seed)
    overlap = int(sums[lags == found.best][0, :, 0, 0].sum())
    free = overlap / _dependence(first, second)
    tried = max(1.0, len(lags) / _dependence(first, second))
    doubt = found.doubt
    if not doubt and not _significant(found.score, free, tried):
        doubt = f"a correlation of {found.score:.2f} can be chance"
    return Offset(found.lags, found.scores, found.best, found.peak, found.low, found.high, doubt)


def by_scores(
    lags: NDArray[np.int64],
    scores: Sequence[Floats],
    times: Sequence[NDArray[np.int64]],
    frames: int,
    rate: float,
    seed: int = 0,
) -> Offset:
    """The offset by what a network says of pairs of frames.

    For each of `lags` the `scores` of pairs and the frames `times` (of `frames`) of the first
    recording in them.
    """
    blocks, count = _blocks(frames)
    sums = np.zeros((len(lags), count, 2))
    for row, (values, at) in enumerate(zip(scores, times, strict=True)):
        sums[row, :, 0] = np.bincount(blocks[at], minlength=count)
        sums[row, :, 1] = np.bincount(blocks[at], values, minlength=count)
    return _found(lags, sums, _mean, rate, seed)


def consistent(pairs: Sequence[tuple[int, int, Offset]], cameras: int) -> tuple[Floats, Floats]:
    """The offset of each camera from the first, `[C]` in frames, and how far each pair is from it.

    Least squares over all pairs that can be told, weighted by their intervals; NaN for a camera
    that none of them ties to the first. `pairs` are two cameras and their offset.
    """
    rows, values, weights = [], [], []
    reached = {0}
    told = [(a, b, one) for a, b, one in pairs if not one.doubt]
    for _ in range(cameras):
        for a, b, _one in told:
            if a in reached or b in reached:
                reached |= {a, b}
    for a, b, one in told:
        if a in reached:
            row = np.zeros(cameras)
            row[a], row[b] = -1, 1
            rows.append(row)
            values.append(one.peak)
            weights.append(1 / max(one.high - one.low, 1.0))
    offsets = np.full(cameras, np.nan)
    offsets[0] = 0.0
    others = sorted(reached - {0})
    if others:
        scale = np.array(weights)[:, None]
        solved, *_ = np.linalg.lstsq(
            np.array(rows)[:, others] * scale, np.array(values) * scale[:, 0], rcond=None
        )
        offsets[others] = solved
    apart = np.array([one.peak - (offsets[b] - offsets[a]) for a, b, one in pairs])
    return offsets, apart


def drift(first: Floats, second: Floats, found: Offset, rate: float) -> float | None:
    """By how many milliseconds a minute the second recording runs away from the first.

    The slope of the offsets of stretches of ten seconds, by the median of the slopes between any
    two of them (Theil-Sen); None where fewer than three of them can be told.
    """
    length = round(10 * rate)
    middles, offsets = [], []
    reach = max(2, round(rate / 2))
    for start in range(0, len(first) - length + 1, length):
        low = start + found.best - reach
        if low < 0 or low + length + 2 * reach > len(second):
            continue
        part = second[low : low + length + 2 * reach]
        lags = range(2 * reach + 1)
        x = first[start : start + length]
        scores = np.array([_mean_pearson(x, part[lag : lag + length]) for lag in lags])
        best = int(scores.argmax())
        if 0 < best < 2 * reach and scores[best] > 0.3:
            middles.append(start + length / 2)
            offsets.append(_between(np.arange(len(scores)), scores, best))
    if len(middles) < 3:
        return None
    x, y = np.array(middles), np.array(offsets)
    a, b = np.triu_indices(len(x), 1)
    slope = float(np.median((y[b] - y[a]) / (x[b] - x[a])))
    return slope * 60_000


# -- inside


def _blocks(frames: int) -> tuple[NDArray[np.int64], int]:
    """The block of each frame, and how many there are."""
    length = max(_LEAST_BLOCK, -(-frames // _BLOCKS))
    blocks = np.arange(frames) // length
    return blocks, int(blocks[-1]) + 1


def _found(
    lags: NDArray[np.int64],
    sums: Floats,
    reduce: Callable[[Floats], Floats],
    rate: float,
    seed: int,
) -> Offset:
    """The highest point of a curve, from sums over blocks `[L,B,K]` that `reduce` makes scores."""
    scores, count = reduce(sums.sum(1)), sums.shape[1]
    overlap = sums.reshape(*sums.shape[:2], -1)[:, :, 0]
    weight = np.sqrt(overlap.sum(1) / overlap.sum(1).max())
    best = int(np.nanargmax(scores * weight))
    source = np.random.default_rng(_seed(seed))
    drawn = source.multinomial(count, np.full(count, 1 / count), size=_REPEATS)
    again = reduce(np.tensordot(drawn, sums, (1, 1)))
    again = np.where(np.isfinite(again), again, -np.inf)
    places = np.where(np.isfinite(again), again * weight, -np.inf).argmax(1)
    low, high = np.quantile(lags[places], (0.025, 0.975))
    low, high = min(float(low), float(lags[best])), max(float(high), float(lags[best]))
    peak = _between(lags, scores, best)
    doubt = ""
    reach = max(2.0, _WIDE * rate)
    if len(lags) < 3:
        doubt = "the recordings are too short to be moved against each other"
    elif max(high - lags[best], lags[best] - low) > reach:
        doubt = f"it may lie anywhere from {low:.0f} to {high:.0f} frames"
    elif low <= lags[0] or high >= lags[-1]:
        doubt = "its interval ends where the recordings overlap too little to try farther offsets"
    elif (rival := _rival(lags, again, best, reach)) is not None:
        doubt = f"{rival:+d} frames would do about as well"
    return Offset(lags, scores, int(lags[best]), peak, min(low, peak), max(high, peak), doubt)


def _rival(lags: NDArray[np.int64], again: Floats, best: int, reach: float) -> int | None:
    """An offset farther than `reach` from the `best` that wins in many draws `[R,L]`, whatever
    overlaps there: of what recurs, every period fits as well."""
    winners = lags[again.argmax(1)]
    others = winners[np.abs(winners - lags[best]) > reach]
    if len(others) <= _RIVALS * len(winners):
        return None
    values, counts = np.unique(others, return_counts=True)
    return int(values[counts.argmax()])


def _seed(seed: int) -> int:
    return int(generator(seed, "sync", "bootstrap").initial_seed())


def _between(lags: NDArray[np.int64], scores: Floats, best: int) -> float:
    """Where the parabola through the highest point and its neighbours is highest."""
    if not 0 < best < len(lags) - 1:
        return float(lags[best])
    left, middle, right = scores[best - 1 : best + 2]
    bend = left - 2 * middle + right
    if not np.isfinite(bend) or bend >= 0:
        return float(lags[best])
    return float(lags[best] + np.clip((left - right) / (2 * bend), -0.5, 0.5))


def _mean(sums: Floats) -> Floats:
    count, total = sums[..., 0], sums[..., 1]
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def _correlation(sums: Floats) -> Floats:
    """The mean over channels of Pearson's correlation, from (n, Σx, Σy, Σx², Σy², Σxy)."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    with np.errstate(all="ignore"):
        together = xy - x * y / n
        apart = np.sqrt((xx - x * x / n) * (yy - y * y / n))
        found = together / apart
    found = np.where((n >= _LEAST_BLOCK) & (apart > 1e-12), found, 0.0).mean(-1)
    return np.where(n[..., 0] >= _LEAST_BLOCK, found, np.nan)


def _pearson(x: Floats, y: Floats) -> float:
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum() / scale) if scale > 0 else 0.0


def _mean_pearson(x: Floats, y: Floats) -> float:
    return float(np.mean([_pearson(a, b) for a, b in zip(x.T, y.T, strict=True)]))


def _dependence(first: Floats, second: Floats) -> float:
    """How many frames of two sets of signals count as one: 1 + 2 Σ ρ₁(k)·ρ₂(k) (Bartlett)."""
    length = min(len(first), len(second))
    total = 1.0
    for lag in range(1, length // 4):
        one, other = (_mean_pearson(both[lag:], both[:-lag]) for both in (first, second))
        if one <= 0.05 or other <= 0.05:
            break
        total += 2 * one * other
    return total


def _significant(correlation: float, free: float, tried: float) -> bool:
    """Whether a correlation of `free` independent pairs, the best of `tried`, is no chance.

    Fisher's z, with the normal distribution's tail for as many tries.
    """
    if free <= 4 or correlation <= 0:
        return False
    z = math.atanh(min(correlation, 0.999999)) * math.sqrt(free - 3)
    return tried * 0.5 * math.erfc(z / math.sqrt(2)) < _CHANCE
