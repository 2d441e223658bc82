"""How well damage is found: against scikit-learn, brute force and cases by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, jaccard_score

from selfsup_cli.evaluation.located import Located, measurements, overlap_interval


def drawn(seed: int, n: int = 12, cells: int = 16, help_: float = 1.0) -> Located:
    rng = np.random.default_rng(seed)
    damaged = rng.random((n, cells)) < 0.6
    damaged[0, :2] = True, False
    scores = np.round(rng.random((n, cells)) + help_ * damaged, 1) / (1 + help_)
    return Located(scores, damaged)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_precision_and_overlap_are_those_of_scikit_learn(seed: int, threshold: float) -> None:
    found = drawn(seed)
    truth, scores = found.damaged.ravel(), found.scores.ravel()
    assert found.precision == pytest.approx(average_precision_score(truth, scores))
    assert found.overlap(threshold) == pytest.approx(jaccard_score(truth, scores >= threshold))
    best = max(found.overlap(one) for one in np.unique(scores))
    assert found.overlap(found.threshold) == pytest.approx(best)


def test_nothing_damaged_and_nothing_marked_is_all_right() -> None:
    none = Located(np.full((2, 4), 0.2), np.zeros((2, 4), dtype=bool))
    assert none.overlap(0.5) == 1
    assert none.overlap(0.1) == 0


def test_the_threshold_is_that_of_the_other_half() -> None:
    # Even images are found at 0.9, odd ones at 0.2: each threshold serves the other half badly.
    damaged = np.array([[1, 0], [1, 0]], dtype=bool)
    found = Located(np.array([[0.9, 0.5], [0.2, 0.1]]), damaged)
    assert found.crossed.tolist() == [[1, 2], [0, 1]]


def test_rows_say_what_chance_is_and_how_sure_they_are() -> None:
    told = {"name": "localisation", "subject": "learned", "dataset": "d", "split": "s"}
    blind = measurements(drawn(1, n=60, help_=0.0), protocol={"drop_rate": 0.6}, **told)
    sharp = measurements(drawn(1, n=60, help_=3.0), protocol={"drop_rate": 0.6}, **told)
    assert len(blind) == len(sharp) == 3
    for row in (blind[0], blind[2]):
        assert row.interval is not None
        assert row.chance is not None
        assert row.interval.low <= row.chance <= row.interval.high
    assert sharp[0].value == pytest.approx(100)
    assert sharp[2].value == pytest.approx(100)
    share = 100 * drawn(1, n=60).damaged.mean()
    assert blind[1].chance == pytest.approx(share)
    single = measurements(drawn(2, n=1), protocol={"drop_rate": 0.6}, **told)
    assert [row.interval for row in single] == [None, None]


def test_the_interval_of_an_overlap_is_what_other_samples_give() -> None:
    values = []
    for seed in range(200):
        found = drawn(seed, n=30)
        values.append(found.overlap(0.5))
    spread = np.percentile(values, 97.5) - np.percentile(values, 2.5)
    found = drawn(7, n=30)
    marked = found.scores >= 0.5
    areas = np.stack([(marked & found.damaged).sum(1), (marked | found.damaged).sum(1)], 1)
    interval = overlap_interval(areas)
    assert interval is not None
    assert interval.high - interval.low == pytest.approx(spread, rel=0.4)
