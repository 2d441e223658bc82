from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup_cli.config.temporal import TimeTransformations
from selfsup_cli.transforms import time

LENGTHS = (16, 29, 31, 32, 63, 64, 127, 128, 300)
FRAMES = 16

lengths = st.integers(FRAMES, 700)
seeds = st.integers(0, 2**32)


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def speeds_of(n: int, frames: int = FRAMES) -> range:
    return range(time.max_speed(n, frames, 4) + 1)


def turns(kappa: int, frames: int = FRAMES) -> range:
    return range(2 * 2**kappa + 1, (frames - 3) * 2**kappa)


def check_indices(indices: np.ndarray, n: int, frames: int = FRAMES) -> None:
    assert indices.dtype == np.int64
    assert indices.shape == (frames,)
    assert indices.min() >= 0
    assert indices.max() < n


def check_there_and_back(indices: np.ndarray) -> tuple[int, int]:
    """One change of direction, from forward to backward, and no frame shown twice in a row."""
    signs = np.sign(np.diff(indices))
    assert 0 not in signs
    forward = int((signs > 0).sum())
    assert 0 < forward < len(signs)
    assert (signs[:forward] == 1).all()
    assert (signs[forward:] == -1).all()
    return forward, len(signs) - forward


@pytest.mark.parametrize(
    ("n", "expected"), list(zip(LENGTHS, (0, 0, 0, 1, 1, 2, 2, 3, 3), strict=True))
)
def test_fastest_speed_of_a_length(n: int, expected: int) -> None:
    assert time.max_speed(n, 16, 4) == expected


@given(lengths, st.integers(8, 64), st.integers(1, 6))
def test_fastest_speed_is_floor_of_log2(n: int, frames: int, speeds: int) -> None:
    if n < frames:
        with pytest.raises(ValueError, match="too few"):
            time.max_speed(n, frames, speeds)
    else:
        expected = min(speeds - 1, math.floor(math.log2(n / frames)))
        assert time.max_speed(n, frames, speeds) == expected


@pytest.mark.parametrize("n", LENGTHS)
def test_speed_keeps_every_2_to_the_kappa_frame_from_every_start(n: int) -> None:
    for kappa in speeds_of(n):
        starts = set()
        for seed in range(60):
            indices = time.speed_indices(n, kappa, FRAMES, gen(seed))
            check_indices(indices, n)
            assert (np.diff(indices) == 2**kappa).all()
            starts.add(int(indices[0]))
        possible = n - 16 * 2**kappa + 1
        assert starts <= set(range(possible))
        assert len(starts) > min(possible, 60) / 3


@given(lengths, st.integers(0, 3), seeds)
def test_speed_never_leaves_the_video(n: int, kappa: int, seed: int) -> None:
    if n < 16 * 2**kappa:
        with pytest.raises(ValueError, match="too few"):
            time.speed_indices(n, kappa, FRAMES, gen(seed))
    else:
        check_indices(time.speed_indices(n, kappa, FRAMES, gen(seed)), n)


@given(lengths, seeds)
def test_random_permutes_neighbouring_frames(n: int, seed: int) -> None:
    indices = time.random_indices(n, FRAMES, gen(seed))
    check_indices(indices, n)
    ordered = np.sort(indices)
    assert (np.diff(ordered) == 1).all()


def test_random_puts_every_frame_everywhere() -> None:
    seen = {
        (k, int(f)) for s in range(200) for k, f in enumerate(time.random_indices(16, 16, gen(s)))
    }
    assert len(seen) == 16 * 16


GOLDEN = [
    (0, 5, [0, 1, 2, 3, 4, 5, 4, 3, 2, 1, 0, -1, -2, -3, -4, -5], 5, 6),
    (1, 11, [0, 2, 4, 6, 8, 10, 9, 7, 5, 3, 1, -1, -3, -5, -7, -9], 9, 11),
    (2, 31, [0, 4, 8, 12, 16, 20, 24, 28, 27, 23, 19, 15, 11, 7, 3, -1], 1, 29),
    (3, 100, [0, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 92, 84, 76], 0, 97),
]


@pytest.mark.parametrize(("kappa", "s", "offsets", "lower", "below_n"), GOLDEN)
def test_periodic_golden_vectors(
    kappa: int, s: int, offsets: list[int], lower: int, below_n: int
) -> None:
    u = time.periodic_offsets(kappa, s, 16, "thesis")
    assert u.tolist() == offsets
    # First and last start: with them the clip touches frame 0 (or starts there) and frame n - 1.
    assert max(0, -u.min()) == lower
    assert u.max() == below_n - 1


def test_periodic_for_every_speed_and_turning_point() -> None:
    cases = [(kappa, s) for kappa in range(4) for s in turns(kappa)]
    assert len(cases) == 161
    spans: dict[int, int] = {}
    parts: dict[bool, set[tuple[int, int]]] = {True: set(), False: set()}
    for kappa, s in cases:
        step, n = 2**kappa, 16 * 2**kappa
        peak, delta = divmod(s, step)
        u = time.periodic_offsets(kappa, s, 16, "thesis")
        # The set V²_κ written out term by term.
        expected = [k * step for k in range(peak + 1)]
        expected += [(peak - j) * step + delta for j in range(1, 16 - peak)]
        assert u.tolist() == expected
        assert u.max() == peak * step
        assert max(0, -u.min()) == max(0, (15 - 2 * peak) * step - delta)
        assert max(0, -u.min()) <= n - 1 - u.max()  # the shortest video of this speed has room
        forward, backward = check_there_and_back(u)
        parts[kappa == 0].add((forward + 1, backward))
        spans[kappa] = max(spans.get(kappa, 0), int(np.ptp(u)) + 1)
    assert {f for f, _ in parts[True]} == set(range(4, 14))
    assert {b for _, b in parts[True]} == set(range(3, 13))
    assert {f for f, _ in parts[False]} == set(range(3, 14))
    assert {b for _, b in parts[False]} == set(range(3, 14))
    assert all(spans[kappa] <= 13 * 2**kappa for kappa in spans)


@pytest.mark.parametrize("kappa", [0, 1, 2])
def test_periodic_draws_every_turning_point_and_no_other(kappa: int) -> None:
    n = 16 * 2**kappa
    seen: Counter[tuple[int, ...]] = Counter()
    for seed in range(1500):
        indices = time.periodic_indices(n, kappa, 16, gen(seed), start="earliest")
        seen[tuple((indices - indices[0]).tolist())] += 1
    expected = {tuple(time.periodic_offsets(kappa, s, 16, "thesis").tolist()) for s in turns(kappa)}
    assert set(seen) == expected
    mean = 1500 / len(expected)
    assert all(abs(count - mean) < 5 * math.sqrt(mean) for count in seen.values())


def test_prose_sub_samples_the_sequence_it_describes() -> None:
    repeats = agree = 0
    for kappa in range(4):
        for s in turns(kappa):
            step = 2**kappa
            full = [*range(s + 1), *range(s - 1, 2 * s - 15 * step - 1, -1)]
            u = time.periodic_offsets(kappa, s, 16, "prose")
            assert u.tolist() == full[::step][:16]
            repeats += int((np.diff(u) == 0).any())
            agree += (
                kappa > 0 and u.tolist() == time.periodic_offsets(kappa, s, 16, "thesis").tolist()
            )
    assert repeats == 33
    assert agree == 10 + 10 + 10


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("variant", ["thesis", "released"])
def test_periodic_turns_once_and_repeats_nothing(n: int, variant: time.Periodic) -> None:
    for kappa in speeds_of(n):
        for seed in range(40):
            indices = time.periodic_indices(n, kappa, FRAMES, gen(seed), variant)
            check_indices(indices, n)
            forward, backward = check_there_and_back(indices)
            # All steps but the one around the turn are those of the clip's speed.
            assert Counter(np.abs(np.diff(indices)).tolist())[2**kappa] >= 14
            assert forward + backward == 15


@given(
    n=lengths,
    seed=seeds,
    variant=st.sampled_from(["thesis", "prose", "released"]),
    start=st.sampled_from(["random", "earliest"]),
)
def test_periodic_never_leaves_the_video(n: int, seed: int, variant: str, start: str) -> None:
    for kappa in speeds_of(n):
        indices = time.periodic_indices(n, kappa, FRAMES, gen(seed), variant, start)  # type: ignore[arg-type]
        check_indices(indices, n)


def test_periodic_starts_as_early_as_the_thesis_says_or_anywhere() -> None:
    n, kappa, step = 300, 2, 4
    last = 0
    for seed in range(300):
        early = time.periodic_indices(n, kappa, 16, gen(seed), start="earliest")
        peak = int(early.argmax())
        # The grid of the way back is shifted by δ against the grid of the way there.
        delta = int(early[15] - early[0]) % step
        assert early[0] == max(0, (15 - 2 * peak) * step - delta)
        last = max(last, int(time.periodic_indices(n, kappa, 16, gen(seed)).max()))
    assert last > n - 10


def test_released_periodic_is_a_window_of_a_shifted_grid() -> None:
    example = [20, 24, 28, 32, 36, 40, 44, 48, 52, 55, 51, 47, 43, 39, 35, 31]
    seen = set()
    forwards = set()
    for seed in range(4000):
        indices = time.periodic_indices(64, 2, 16, gen(seed), "released", "earliest")
        seen.add(tuple(indices.tolist()))
        forwards.add(check_there_and_back(indices)[0])
    assert tuple(example) in seen
    assert len(seen) == 3 * 13
    grid = [4 * k for k in range(14)]
    assert seen == {
        tuple((grid + [off + v for v in reversed(grid)])[w : w + 16])
        for off in (1, 2, 3)
        for w in range(13)
    }


@given(lengths, seeds)
def test_warp_is_ordered_and_skips_at_most_the_longest_step(n: int, seed: int) -> None:
    kappa_max = time.max_speed(n, FRAMES, 4)
    indices = time.warp_indices(n, kappa_max, FRAMES, gen(seed))
    check_indices(indices, n)
    steps = np.diff(indices)
    assert (steps >= 1).all()
    if kappa_max >= 2:
        assert steps.max() <= 2**kappa_max


def test_warp_draws_every_step_equally_often() -> None:
    steps = np.concatenate([np.diff(time.warp_indices(300, 3, 16, gen(s))) for s in range(600)])
    counts = Counter(steps.tolist())
    assert set(counts) == set(range(1, 9))
    expected = len(steps) / 8
    assert all(abs(c - expected) < 5 * math.sqrt(expected) for c in counts.values())


def test_warp_clamps_the_one_frame_by_which_it_can_overshoot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def longest(
        low: int, high: int, size: tuple[int, ...], *, generator: torch.Generator
    ) -> torch.Tensor:
        return torch.full(size, high - 1 if size else low)

    monkeypatch.setattr(torch, "randint", longest)
    indices = time.warp_indices(128, 3, 16, gen())
    assert indices.tolist() == [*range(8, 121, 8), 127]


@pytest.mark.parametrize("n", [16, 29, 31, 32, 63])
def test_warp_of_short_videos_is_a_sorted_subset_of_all_frames(n: int) -> None:
    seen: set[int] = set()
    for seed in range(60):
        indices = time.warp_indices(n, time.max_speed(n, 16, 4), 16, gen(seed))
        check_indices(indices, n)
        assert (np.diff(indices) > 0).all()
        seen |= set(indices.tolist())
    assert seen == set(range(n))


@given(lengths, seeds)
def test_warp_of_few_speeds_keeps_steps_short_in_long_videos(n: int, seed: int) -> None:
    indices = time.warp_indices(n, 0, FRAMES, gen(seed))
    check_indices(indices, n)
    assert indices[-1] - indices[0] < 31


@given(lengths, seeds)
def test_warp_of_the_thesis_repeats_frames(n: int, seed: int) -> None:
    indices = time.warp_indices(n, time.max_speed(n, 16, 4), FRAMES, gen(seed), "thesis")
    check_indices(indices, n)
    steps = np.diff(indices)
    assert steps.min() >= 0
    assert steps.max() <= min(7, (n - 1) // 15)


def test_warp_of_the_thesis_draws_all_eight_steps() -> None:
    steps = {
        int(d) for s in range(50) for d in np.diff(time.warp_indices(300, 3, 16, gen(s), "thesis"))
    }
    assert steps == set(range(8))


@given(lengths, seeds)
def test_draw_shares_the_speed_and_labels_what_has_one(n: int, seed: int) -> None:
    clips = time.draw(n, TimeTransformations(), gen(seed))
    assert [c.kind for c in clips] == ["speed", "random", "periodic", "warp"]
    speed, rand, periodic, warp = clips
    assert (np.diff(speed.frames) == 2**speed.speed).all()
    assert periodic.speed == speed.speed
    assert rand.speed == warp.speed == 0
    assert Counter(np.abs(np.diff(periodic.frames)).tolist())[2**periodic.speed] >= 14
    for clip in clips:
        check_indices(clip.frames, n)


def test_draw_uses_every_speed_that_fits() -> None:
    for n in LENGTHS:
        seen = Counter(time.draw(n, TimeTransformations(), gen(s))[0].speed for s in range(200))
        assert set(seen) == set(speeds_of(n))
        assert min(seen.values()) > 200 / len(seen) / 2


def test_draw_follows_the_order_and_variants_asked_for() -> None:
    options = TimeTransformations.model_validate(
        {"kinds": ["warp", "speed"], "warp": "thesis", "speeds": 1, "speed_loss": False}
    )
    repeated = False
    for seed in range(50):
        warp, speed = time.draw(200, options, gen(seed))
        assert (warp.kind, speed.kind) == ("warp", "speed")
        assert speed.speed == 0
        repeated |= bool((np.diff(warp.frames) == 0).any())
    assert repeated
    periodic = TimeTransformations.model_validate(
        {"kinds": ["speed", "periodic"], "periodic_start": "earliest"}
    )
    clips = [time.draw(300, periodic, gen(s))[1].frames for s in range(50)]
    assert max(int(c.min()) for c in clips) == 0


def test_draw_depends_on_the_generator_alone() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    state = torch.random.get_rng_state()
    first = time.draw(300, TimeTransformations(), gen(7))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    np.random.seed(2)
    again = time.draw(300, TimeTransformations(), gen(7))
    other = time.draw(300, TimeTransformations(), gen(8))
    assert all((a.frames == b.frames).all() for a, b in zip(first, again, strict=True))
    assert any((a.frames != b.frames).any() for a, b in zip(first, other, strict=True))


def test_draw_refuses_a_video_shorter_than_a_clip() -> None:
    with pytest.raises(ValueError, match="15 frames are too few"):
        time.draw(15, TimeTransformations(), gen())


@settings(max_examples=60)
@given(st.integers(8, 64), st.integers(0, 400), st.integers(1, 6), seeds)
def test_other_clip_lengths(frames: int, extra: int, speeds: int, seed: int) -> None:
    n = frames + extra
    options = TimeTransformations(frames=frames, speeds=speeds, min_frames=frames, speed_loss=False)
    speed, rand, periodic, warp = time.draw(n, options, gen(seed))
    for clip in (speed, rand, periodic, warp):
        check_indices(clip.frames, n, frames)
    check_there_and_back(periodic.frames)
    assert (np.diff(warp.frames) > 0).all()
    assert (np.diff(speed.frames) == 2**speed.speed).all()
    released = options.model_copy(update={"periodic": "released", "periodic_start": "earliest"})
    check_there_and_back(time.draw(n, released, gen(seed))[2].frames)


@given(st.integers(16, 2000), st.integers(1, 8))
def test_test_protocol_takes_every_start_it_names(n: int, max_skip: int) -> None:
    skip = max(1, min(n // 16, max_skip))
    step = max((n - 16 * skip + 1) // 32, 1)
    starts = []
    start = 0
    while start < n - 16 * skip + 1:
        starts.append(start)
        start += step
    clips = time.evenly_spaced_clips(n, 16, max_skip, None)
    assert clips.dtype == np.int64
    assert clips.tolist() == [[s + skip * k for k in range(16)] for s in starts]
    assert clips.max() < n
    assert len(starts) <= 63


def test_test_protocol_makes_13_clips_of_60_frames_and_32_to_63_of_long_ones() -> None:
    assert time.evenly_spaced_clips(60, 16, 4, None).shape == (13, 16)
    assert all(32 <= len(time.evenly_spaced_clips(n, 16, 4, None)) <= 63 for n in range(95, 1000))


@given(st.integers(16, 500), st.integers(1, 12), st.integers(1, 4))
def test_a_number_of_clips_spreads_over_the_video(n: int, count: int, max_skip: int) -> None:
    clips = time.evenly_spaced_clips(n, 16, max_skip, count)
    skip = max(1, min(n // 16, max_skip))
    last = n - 16 * skip
    assert len(clips) == min(count, last + 1)
    assert (np.diff(clips, axis=1) == skip).all()
    check_starts = clips[:, 0].tolist()
    if len(clips) == 1:
        assert check_starts == [last // 2]
    else:
        assert (check_starts[0], check_starts[-1]) == (0, last)
        gaps = [b - a for a, b in pairwise(check_starts)]
        assert max(gaps) - min(gaps) <= 1
        assert min(gaps) >= 1


@pytest.mark.parametrize("count", [None, 1, 10])
def test_short_videos_are_looped(count: int | None) -> None:
    assert time.evenly_spaced_clips(5, 16, 4, count).tolist() == [[k % 5 for k in range(16)]]
    assert time.evenly_spaced_clips(1, 16, 4, count).tolist() == [[0] * 16]
    with pytest.raises(ValueError, match="no clips"):
        time.evenly_spaced_clips(0, 16, 4, count)
