"""Numbers about pairs of views, against independent statements of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from selfsup_cli.data.multiview import Recording
from selfsup_cli.evaluation.synchrony import Answers, PairScore, bins_of
from selfsup_cli.evaluation.view_retrieval import Timing, closeness, timing_measurements


@given(st.integers(0, 50), st.integers(2, 300), st.integers(1, 6))
def test_bins_of_gaps_cover_each_gap_once(low: int, width: int, count: int) -> None:
    found = bins_of(low, low + width, count)
    inside = [gap for first, last in found for gap in range(first, last + 1)]
    assert inside == list(range(low + 1, low + width))
    assert len(found) <= count


def test_the_bins_of_the_thesis() -> None:
    assert bins_of(4, 128) == [(5, 12), (13, 29), (30, 61), (62, 127)]


def test_an_accuracy_is_the_mean_over_stretches_of_time() -> None:
    yes = {"sync": np.array([True, True, False, True])}
    no = {"sync": np.array([True, False, False, True])}
    found = Answers(yes, no, np.array([5.0, 6, 100, 100]), np.array([0, 0, 1, 2]))  # type: ignore[arg-type]
    score = found.score("sync")
    assert score.shares == (0.75, 0.0, 1.0)
    assert score.pairs == 8
    assert score.value == pytest.approx(1.75 / 3)
    error = np.std([0.75, 0.0, 1.0], ddof=1) / np.sqrt(3)
    assert score.errors_above == pytest.approx((1.75 / 3 - 0.5) / error)
    near = found.score("sync", "near", found.gaps < 50)
    assert (near.shares, near.pairs) == ((0.75,), 4)
    assert near.errors_above is None


def test_one_answer_for_everything_is_chance() -> None:
    n = 40
    found = Answers(
        {"flip": np.ones(n, bool)}, {"flip": np.zeros(n, bool)}, np.zeros(n), np.arange(n) % 8
    )
    assert found.score("flip").value == 0.5
    assert found.score("flip").errors_above is None


class Posed:
    """Views of a pose that turns with the camera and grows with the recording."""

    recordings = (Recording("S1", "a", "a", (), 9, 50.0), Recording("S5", "a", "a", (), 9, 50.0))

    def poses(self, recording: int, camera: int, frames: list[int]) -> np.ndarray:
        pose = np.random.default_rng(frames[0]).normal(size=(17, 3)) * 300
        turned = Rotation.from_rotvec([0.1, camera, 0.2]).apply(pose)
        found: np.ndarray = (1 + 0.3 * recording) * turned[None].astype(np.float32)
        return found if frames[0] < 8 else np.full_like(found, np.nan)


def test_poses_are_compared_whoever_strikes_them_and_from_wherever() -> None:
    views: Any = Posed()
    same = closeness(views, [((0, 0, 3), (1, 2, 3))])
    assert same is not None
    assert same[0][0] == "S1/a"
    assert same[0][1] == pytest.approx(0, abs=0.01)
    other = closeness(views, [((0, 0, 3), (1, 2, 4)), ((0, 0, 3), (1, 0, 8))])
    assert other is not None
    assert len(other) == 1  # the pose of the second pair is not known
    assert other[0][1] > 50
    assert closeness(views, [((0, 0, 8), (1, 0, 8))]) is None


def timing(frame: int, found: int, count: int, recording: int) -> Timing:
    apart = np.arange(count, dtype=np.float64) - frame
    return Timing(recording, frame, found, 0.0, apart, found)


def test_errors_in_time_stand_beside_what_any_candidate_would_have() -> None:
    rows = timing_measurements(
        [timing(50, 52, 101, 0), timing(50, 90, 101, 0), timing(50, 46, 101, 1)],
        "tiny",
        "all",
        {"side": 8},
        step=1,
    )
    share, error = rows
    assert share.value == pytest.approx(100 * (0.5 + 1) / 2)
    assert share.chance == pytest.approx(100 * 9 / 101)
    assert error.value == 4
    assert error.chance == 25
    assert PairScore("x", (0.5,), 2).value == 0.5
