from __future__ import annotations

from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
from evaluation_toys import CPU, ToySource
from hypothesis import given
from hypothesis import strategies as st

from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.clips import (
    ClipProtocol,
    ProtocolPlan,
    in_batches,
    read_videos,
)

lengths = st.integers(1, 400)


@given(n=lengths, count=st.integers(1, 12), seed=st.integers(0, 9))
def test_controls_change_the_order_of_time_and_nothing_else(n: int, count: int, seed: int) -> None:
    plain = ClipProtocol(16, 4, count)(n, "a.avi")
    still = ClipProtocol(16, 4, count, "still")(n, "a.avi")
    reverse = ClipProtocol(16, 4, count, "reversed")(n, "a.avi")
    shuffled = ClipProtocol(16, 4, count, "shuffled", seed)(n, "a.avi")
    assert plain.shape == still.shape == reverse.shape == shuffled.shape
    assert (still == plain[:, [8]]).all()
    assert (reverse[:, ::-1] == plain).all()
    assert (np.sort(shuffled, 1) == np.sort(plain, 1)).all()


def test_shuffling_is_a_function_of_seed_video_and_clip() -> None:
    clips = ClipProtocol(16, 1, 3, "shuffled", 5)
    a = clips(200, "a.avi")
    assert (a == clips(200, "a.avi")).all()
    assert (a != clips(200, "b.avi")).any()
    assert (a != ClipProtocol(16, 1, 3, "shuffled", 6)(200, "a.avi")).any()
    ranks = np.argsort(np.argsort(a, 1), 1)
    assert (ranks[0] != ranks[1]).any()


@given(st.lists(lengths, min_size=1, max_size=20), st.sampled_from([None, 1, 10]))
def test_counts_agree_with_the_clips(num_frames: list[int], count: int | None) -> None:
    clips = ClipProtocol(16, 4, count)
    assert clips.count_each(np.array(num_frames)).tolist() == [
        len(clips(n, "x")) for n in num_frames
    ]


def test_description_tells_protocols_apart() -> None:
    several = [
        ClipProtocol(16, 4, 10),
        ClipProtocol(8, 4, 10),
        ClipProtocol(16, 2, 10),
        ClipProtocol(16, 4, None),
        ClipProtocol(16, 4, 10, "still"),
        ClipProtocol(16, 4, 10, "reversed"),
        ClipProtocol(16, 4, 10, "shuffled", 0),
        ClipProtocol(16, 4, 10, "shuffled", 1),
    ]
    assert len({str(p.describe()) for p in several}) == len(several)
    # The seed of a control that is not asked for is no part of the protocol.
    assert ClipProtocol(16, 4, 10, None, 3).describe() == several[0].describe()


@pytest.mark.parametrize("workers", [0, 2])
def test_reads_each_frame_once_and_gives_every_clip(workers: int) -> None:
    source = ToySource([40, 20, 9, 70])
    plan = ProtocolPlan(source, ClipProtocol(8, 2, 5, "reversed"))
    seen = []
    for item in read_videos(source, [2, 0, 3], plan, (16, 20), workers):
        seen.append(item.video)
        assert item.frames.shape[1] == len(np.unique(plan(item.video)))
        # The source writes the number of a frame into its corner.
        numbers = item.frames[0, :, 15, 15].numpy()
        assert (numbers[item.clips.numpy()] == plan(item.video)).all()
    assert seen == [2, 0, 3]


def test_batches_cross_videos_and_keep_the_order() -> None:
    source = ToySource([40, 20, 9, 70])
    plan = ProtocolPlan(source, ClipProtocol(8, 2, 3))
    decoded = read_videos(source, range(4), plan, (16, 20), 0)
    expected = [(i, clip.tolist()) for i in range(4) for clip in plan(i)]
    found = []
    sizes = []
    for clips, owners in in_batches(decoded, 4, CPU.device):
        assert clips.shape == (len(owners), 3, 8, 16, 20)
        sizes.append(len(owners))
        found += [(i, clip[0, :, 15, 15].tolist()) for i, clip in zip(owners, clips, strict=True)]
    assert found == expected
    assert sizes == [4, 4, 3]  # 3 + 3 + 2 + 3 clips


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_file_is_named_or_told(workers: int) -> None:
    source = ToySource([40, 40, 40], broken=("toy/001.avi",))
    plan = ProtocolPlan(source, ClipProtocol(8, 2, 2))
    with pytest.raises(InputError, match=r"toy/001.avi of toy cannot be read: no video stream"):
        list(read_videos(source, range(3), plan, (16, 20), workers))
    told: list[tuple[str, str]] = []
    read = read_videos(source, range(3), plan, (16, 20), workers, lambda *about: told.append(about))
    assert [item.video for item in read] == [0, 2]
    assert told == [("toy/001.avi", "no video stream")]


def test_plans_travel_to_workers_of_any_kind() -> None:
    plan = ProtocolPlan(ToySource([40]), ClipProtocol(8, 2, 2))
    copy = ForkingPickler.loads(ForkingPickler.dumps(plan))
    assert (copy(0) == plan(0)).all()
