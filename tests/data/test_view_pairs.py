"""Which views make pairs: times, cameras, motion, rates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_views import TinyViews

from selfsup_cli.config.multiview import Jitter, Pairs
from selfsup_cli.data.loader import EpochLoader
from selfsup_cli.data.view_pairs import (
    Anchor,
    AnchorDataset,
    Anchors,
    Stretch,
    at_rate,
    gap_range,
    in_frames,
    read_anchor,
)
from selfsup_cli.data.view_selection import SomeCameras
from selfsup_cli.errors import InputError


def anchors_of(views: TinyViews, settings: Pairs | None = None, **more: float) -> Anchors:
    whole = [Stretch(k, 0, one.frames) for k, one in enumerate(views.recordings)]
    return Anchors(
        views, whole, settings or Pairs(), name="tiny", split="train", split_rule="all", **more
    )


@given(
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 1000),
    index=st.integers(0, 10**6),
    frames=st.integers(12, 400),
    cameras=st.integers(2, 5),
    rate=st.sampled_from([25.0, 50.0, 60.0, 59.94]),
)
def test_an_anchor_is_two_cameras_and_two_times(
    seed: int, epoch: int, index: int, frames: int, cameras: int, rate: float
) -> None:
    views = TinyViews(frames=frames, cameras=cameras, rate=rate, side=8)
    part = anchors_of(views)
    one = part.anchor(seed, epoch, index % len(part))
    assert one.first != one.second
    assert {one.first, one.second} <= set(range(cameras))
    assert {one.time, one.later} <= set(range(frames))
    gap = at_rate(abs(one.later - one.time), rate)
    assert 4 < gap < 128
    assert one == part.anchor(seed, epoch, index % len(part))


def test_gaps_are_open_at_both_ends_and_counted_at_50_hz() -> None:
    assert gap_range(50, 4, 128) == (5, 127)
    assert gap_range(25, 4, 128) == (3, 63)
    assert gap_range(100, 4, 128) == (9, 255)
    assert gap_range(60, 4, 128) == (5, 153)
    assert [in_frames(gap, 25) for gap in (1, 8, 50)] == [1, 4, 25]


def test_times_and_cameras_are_drawn_evenly() -> None:
    views = TinyViews(frames=600, cameras=3, side=8, subjects=("S1",))
    part = anchors_of(views)
    found = [part.anchor(0, 0, i) for i in range(len(part))]
    inside = [one.later - one.time for one in found if 127 <= one.time < 600 - 127]
    counts = np.histogram(np.abs(inside), bins=[5, 46, 87, 128])[0]
    assert counts.min() > 0.8 * counts.max()
    assert 0.4 < np.mean([gap > 0 for gap in inside]) < 0.6
    pairs, count = np.unique([[a.first, a.second] for a in found], axis=0, return_counts=True)
    assert len(pairs) == 6
    assert count.min() > 0.6 * count.max()


def test_without_motion_on_the_way_two_frames_make_no_pair() -> None:
    """The first 200 frames are still: within them nothing is paired, across their end it is where
    enough of the way moves."""
    views = TinyViews(frames=400, still=200, side=8, subjects=("S1",))
    part = anchors_of(views)
    travelled = np.cumsum(views.motion(0))
    threshold = 0.25 * views.motion(0)[1:].mean()
    assert part.threshold == pytest.approx(threshold)
    expected = {
        time: [
            other
            for other in range(400)
            if 4 < abs(other - time) < 128
            and abs(travelled[other] - travelled[time]) / abs(other - time) >= threshold
        ]
        for time in range(400)
    }
    usable = [time for time in range(400) if expected[time]]
    assert part.still_frames == 400 - len(usable) > 50
    assert [part.moment(i)[1] for i in range(len(part))] == usable
    for time in (110, 190, 199, 260, 399):
        assert part.others(part.stretches[0], time).tolist() == expected[time]
    assert anchors_of(views, Pairs(still=0)).still_frames == 0


def test_of_every_few_frames_one_is_drawn_anew_in_each_epoch() -> None:
    views = TinyViews(frames=300, side=8, subjects=("S1", "S5"))
    part = anchors_of(views, Pairs(every=7))
    assert len(part) == -(-600 // 7)
    times = [[part.anchor(0, epoch, i).time for i in range(len(part))] for epoch in range(20)]
    for i, column in enumerate(zip(*times, strict=True)):
        first = i * 7
        assert all(first <= t + 300 * (first + 6 >= 300 and t < first) < first + 7 for t in column)
    assert len({column[3] for column in times}) > 3


def test_stretches_are_kept_apart() -> None:
    """What is held out of a recording is no part of a pair that is learned from."""
    views = TinyViews(frames=300, side=8, subjects=("S1",))
    parts = [
        Anchors(views, [one], Pairs(), name="tiny", split=split, split_rule="by time")
        for one, split in ((Stretch(0, 0, 240), "train"), (Stretch(0, 240, 300), "test"))
    ]
    for part, (low, high) in zip(parts, ((0, 240), (240, 300)), strict=True):
        for i in range(len(part)):
            one = part.anchor(0, 0, i)
            assert {one.time, one.later} <= set(range(low, high))
    assert parts[1].ids[0] == "S1/turning@240"


def test_what_cannot_be_paired_is_told() -> None:
    with pytest.raises(InputError, match="longest recording of the train part has 5"):
        anchors_of(TinyViews(frames=5, side=8))
    with pytest.raises(InputError, match="nothing moves"):
        anchors_of(TinyViews(frames=100, still=100, side=8), threshold=0.1)
    with pytest.raises(InputError, match="S1/turning was seen by one camera"):
        anchors_of(TinyViews(cameras=1, side=8))
    single = Pairs(views="single", jitter=Jitter(rotate=10))
    part = anchors_of(TinyViews(cameras=1, side=8), single)
    one = part.anchor(0, 0, 3)
    assert one.first == one.second == 0


def test_what_is_read_is_what_the_anchor_says() -> None:
    views = TinyViews(frames=60)
    one = Anchor(recording=1, first=2, second=0, time=20, later=31)
    sample = read_anchor(views, one, masks=True)
    for place, (camera, frame) in enumerate(((2, 20), (0, 20), (0, 31))):
        crop, mask = views.crops(1, camera, [frame]), views.masks(1, camera, [frame])
        assert mask is not None
        assert np.array_equal(sample["views"][0, place].numpy(), crop[0])
        assert np.array_equal(sample["masks"][0, place].numpy(), mask[0])
    with pytest.raises(InputError, match="the background of S5/turning is not known"):
        read_anchor(TinyViews(frames=60, masked=False), one, masks=True)
    assert "masks" not in read_anchor(TinyViews(frames=60, masked=False), one, masks=False)


def test_epochs_do_not_depend_on_how_they_are_read() -> None:
    """The same samples from the middle of an epoch on, and with loader processes."""
    part = anchors_of(TinyViews(frames=40, side=8), Pairs(background="mixed", max_gap=30))
    dataset = AnchorDataset(part, seed=3)
    loader = EpochLoader(dataset, len(part), batch_size=8, seed=3)
    whole = list(loader.epoch(1))
    again = list(loader.epoch(1, 5))
    others = EpochLoader(dataset, len(part), batch_size=8, seed=3, workers=1)
    for name in ("views", "masks", "backgrounds", "index"):
        assert torch.equal(whole[5][name], again[0][name])
        assert torch.equal(whole[0][name], next(iter(others.epoch(1)))[name])
    assert whole[0]["views"].shape == (8, 3, 3, 8, 8)
    assert whole[0]["backgrounds"].shape == (8, 4, 3, 8, 8)


def test_some_cameras_are_those_that_are_named() -> None:
    views = TinyViews(cameras=3, frames=20, side=8)
    some = SomeCameras(views, ["cam2", "cam0"])
    assert [one.name for one in some.recordings[0].cameras] == ["cam0", "cam2"]
    assert np.array_equal(some.crops(1, 1, [3]), views.crops(1, 2, [3]))
    assert some.fingerprint != views.fingerprint
    with pytest.raises(InputError, match=r"no camera 'cam7'.*there are cam0, cam1, cam2"):
        SomeCameras(views, ["cam7"])
