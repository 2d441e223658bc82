"""Offsets between cameras: found where they can be told, doubted where not."""

from __future__ import annotations

import numpy as np
import pytest

from selfsup_cli.data.offsets import (
    Offset,
    by_motion,
    by_scores,
    consistent,
    drift,
    energy,
    searched,
)

RATE = 50.0


def profile(frames: int, seed: int = 0, view: int = 0) -> np.ndarray:
    """Motion of 48 stripes: five heights that wave irregularly, seen with noise of a view."""
    source, own = np.random.default_rng(seed), np.random.default_rng(100 + view)
    waves = source.normal(size=(frames + 50, 5)) ** 2
    kernel = np.hanning(25)
    smooth = np.stack([np.convolve(wave, kernel, "same") for wave in waves.T], 1)[25:-25]
    stripes = np.repeat(smooth, [10, 10, 10, 9, 9], axis=1)
    gain = own.uniform(0.5, 2, 48)
    return np.asarray(stripes * gain + own.uniform(0, 1, (frames, 48)), np.float32)


@pytest.mark.parametrize("shift", [0, 7, -23, 60])
def test_a_known_offset_is_found(shift: int) -> None:
    whole = profile(700)
    other = profile(700, view=1)
    first = energy(whole[max(0, -shift) : 600], RATE)
    second = energy(other[max(0, shift) : 640], RATE)
    found = by_motion(first, second, 100, RATE)
    assert not found.doubt
    assert found.best == -shift
    assert abs(found.peak + shift) < 0.6
    assert found.low <= found.peak <= found.high
    assert found.high - found.low < 8


def test_of_different_events_it_cannot_be_told() -> None:
    doubts = [
        by_motion(
            energy(profile(300, seed), RATE), energy(profile(300, 50 + seed, 1), RATE), 100, RATE
        ).doubt
        for seed in range(8)
    ]
    assert sum(map(bool, doubts)) >= 7, doubts


def test_a_few_smooth_frames_prove_nothing() -> None:
    told = 0
    for seed in range(12):
        pair = profile(90, seed), profile(90, 50 + seed, 1)
        found = by_motion(energy(pair[0], RATE), energy(pair[1], RATE), 8, RATE)
        told += not found.doubt
    assert told <= 1


def test_what_recurs_cannot_be_told_either() -> None:
    # As regular as it is, every period fits as well.
    time = np.arange(400)
    regular = np.repeat((1 + np.sin(time * (2 * np.pi / 25)))[:, None], 48, 1).astype(np.float32)
    source = np.random.default_rng(0)
    noisy = [regular + source.normal(0, 0.3, regular.shape).clip(0) for _ in range(2)]
    first, second = (energy(one.astype(np.float32), RATE) for one in noisy)
    assert "would do about as well" in by_motion(first, second, 100, RATE).doubt


def test_an_offset_beyond_what_is_searched_is_doubted() -> None:
    first = energy(profile(700)[:600], RATE)
    second = energy(profile(700, view=1)[45:], RATE)
    assert by_motion(first, second, 40, RATE).doubt


def test_the_correlation_is_pearsons_over_what_overlaps() -> None:
    source = np.random.default_rng(1)
    first, second = source.normal(size=(60, 5)), source.normal(size=(50, 5))
    found = by_motion(first, second, 12, RATE)
    for lag, score in zip(found.lags.tolist(), found.scores.tolist(), strict=True):
        x = first[max(0, -lag) : min(60, 50 - lag)]
        y = second[max(0, lag) : min(50, 60 + lag)]
        expected = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(x.T, y.T, strict=True)])
        assert score == pytest.approx(expected, abs=1e-9)


def test_single_bright_frames_are_no_motion() -> None:
    spiky = profile(200)
    spiky[::12] *= 20
    calm = profile(200)
    calm[::12] = calm[1::12][: len(calm[::12])]
    apart = np.abs(energy(spiky, RATE) - energy(calm, RATE))
    assert np.median(apart) < 0.15 * np.std(energy(calm, RATE))


def logits(shift: int, noise: float, frames: int = 120) -> tuple[np.ndarray, list[np.ndarray]]:
    source = np.random.default_rng(0)
    lags = searched(frames, frames, 30)
    scores = []
    for lag in lags.tolist():
        values = 3 * np.exp(-(((lag - shift) / 6) ** 2))
        scores.append(values + source.normal(0, noise, frames - abs(lag)))
    return lags, scores


def test_scores_of_a_network() -> None:
    lags, scores = logits(9, 1.0)
    times = [np.arange(len(one)) + max(0, -lag) for lag, one in zip(lags, scores, strict=True)]
    found = by_scores(lags, scores, times, 120, RATE)
    assert not found.doubt
    assert abs(found.peak - 9) <= 1
    lags, scores = logits(500, 1.0)
    doubtful = by_scores(lags, scores, times, 120, RATE)
    assert doubtful.doubt, "noise alone"


def test_an_interval_that_ends_at_what_was_tried_tells_nothing() -> None:
    lags = searched(120, 120, 30)
    scores = [np.zeros(120 - abs(lag)) for lag in lags.tolist()]
    scores[-2][:] = 1.0
    scores[-1][:45], scores[-1][45:] = 1.5, 0.4  # worse on the whole, better in half of the draws
    times = [np.arange(len(one)) + max(0, -lag) for lag, one in zip(lags, scores, strict=True)]
    found = by_scores(lags, scores, times, 120, RATE)
    assert (found.best, found.high) == (29, 30)
    assert "farther offsets" in found.doubt


def test_a_recording_that_runs_away() -> None:
    source = profile(6000)
    ticks = np.arange(5900) * 1.0004  # 24 milliseconds a minute
    low = np.floor(ticks).astype(int)
    part = (ticks - low)[:, None]
    other = source[low] * (1 - part) + source[low + 1] * part
    first, second = energy(source[:5900], RATE), energy(other, RATE)
    found = by_motion(second, first, 20, RATE)
    slope = drift(second, first, found, RATE)
    assert slope == pytest.approx(24, abs=3)
    steady = by_motion(first, energy(source[:5900], RATE), 20, RATE)
    assert drift(first, energy(source[:5900], RATE), steady, RATE) == pytest.approx(0, abs=2)
    assert drift(first[:900], second[:900], found, RATE) is None


def offset(peak: float, doubt: str = "") -> Offset:
    return Offset(np.arange(3), np.zeros(3), round(peak), peak, peak - 1, peak + 1, doubt)


def test_cameras_together() -> None:
    pairs = [(0, 1, offset(10)), (0, 2, offset(-5.2)), (1, 2, offset(-14.9))]
    starts, apart = consistent(pairs, 4)
    np.testing.assert_allclose(starts[:3], [0, 9.9, -5.1], atol=0.15)
    assert np.isnan(starts[3])
    assert np.abs(apart).max() < 0.3
    only = [(0, 1, offset(10)), (0, 2, offset(3, "doubt")), (1, 2, offset(-4))]
    starts, _ = consistent(only, 3)
    np.testing.assert_allclose(starts, [0, 10, 6])
