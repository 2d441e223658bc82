"""Intervals against SciPy, closed forms and their own coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from selfsup_cli.runs.statistics import (
    Interval,
    beta_share,
    clustered_mean,
    t_quantile,
    wilson,
)

counts = st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_wilson_agrees_with_scipy(count: tuple[int, int], level: float) -> None:
    hits, n = count
    ours = wilson(hits, n, level)
    theirs = stats.binomtest(hits, n).proportion_ci(level, method="wilson")
    assert ours.low == pytest.approx(theirs.low, abs=1e-10)
    assert ours.high == pytest.approx(theirs.high, abs=1e-10)
    assert ours.level == level


@given(counts)
def test_wilson_ends_solve_the_score_equation(count: tuple[int, int]) -> None:
    hits, n = count
    z = 1.959963984540054
    share, interval = hits / n, wilson(hits, n)
    for end in (interval.low, interval.high):
        if 0 < end < 1:
            assert (share - end) ** 2 == pytest.approx(z**2 * end * (1 - end) / n, rel=1e-6)


@given(counts)
def test_wilson_holds_the_share_stays_in_bounds_and_mirrors(count: tuple[int, int]) -> None:
    hits, n = count
    one, other = wilson(hits, n), wilson(n - hits, n)
    assert 0 <= one.low <= hits / n <= one.high <= 1
    assert one.high > one.low
    assert one.low == pytest.approx(1 - other.high, abs=1e-12)


def test_wilson_covers_as_it_says() -> None:
    n, true = 60, 0.13
    hits = np.arange(n + 1)
    inside = np.array([wilson(int(k), n).low <= true <= wilson(int(k), n).high for k in hits])
    assert 0.93 < stats.binom.pmf(hits, n, true) @ inside < 0.97


@pytest.mark.parametrize(("hits", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_share(hits: int, n: int) -> None:
    with pytest.raises(ValueError, match="is not a share"):
        wilson(hits, n)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 100_000), st.floats(0.5001, 0.99999))
def test_t_quantile_agrees_with_scipy(df: int, probability: float) -> None:
    theirs = stats.t.ppf(probability, df)
    assert t_quantile(probability, df) == pytest.approx(theirs, rel=1e-8, abs=1e-10)
    assert t_quantile(1 - probability, df) == pytest.approx(-theirs, rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("df", [1, 2, 3, 9, 255, 999, 12_345, 1_000_000])
def test_t_quantile_of_the_95_percent_interval(df: int) -> None:
    assert t_quantile(0.975, df) == pytest.approx(stats.t.ppf(0.975, df), rel=1e-9)


@given(st.floats(0.51, 0.9999))
def test_t_quantile_in_closed_form(probability: float) -> None:
    cauchy = math.tan(math.pi * (probability - 0.5))
    assert t_quantile(probability, 1) == pytest.approx(cauchy, rel=1e-9)
    p = probability
    two = (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p)))
    assert t_quantile(probability, 2) == pytest.approx(two, rel=1e-9)


def test_t_quantile_refuses_nonsense() -> None:
    for probability, df in ((0, 3), (1, 3), (0.9, 0), (float("nan"), 3)):
        with pytest.raises(ValueError, match="no quantile"):
            t_quantile(probability, df)


@settings(max_examples=300, deadline=None)
@given(st.floats(0.1, 2000), st.floats(0.1, 2000), st.floats(0, 1))
def test_beta_share_agrees_with_scipy(a: float, b: float, x: float) -> None:
    assert beta_share(a, b, x) == pytest.approx(special.betainc(a, b, x), abs=1e-10)


@settings(deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=60))
def test_clustered_mean_agrees_with_scipy(values: list[float]) -> None:
    mean, interval = clustered_mean(values)
    assert mean == pytest.approx(np.mean(values), abs=1e-9)
    assert interval is not None
    error = stats.sem(values)
    low, high = (
        stats.t.interval(0.95, len(values) - 1, np.mean(values), error) if error else (mean,) * 2
    )
    assert interval.low == pytest.approx(low, rel=1e-8, abs=1e-6)
    assert interval.high == pytest.approx(high, rel=1e-8, abs=1e-6)
    assert interval.method == f"Student t over {len(values)} videos"


def test_clips_of_one_video_do_not_narrow_the_interval() -> None:
    videos = [0.0, 1.0, 0.5, 0.75]
    _, honest = clustered_mean(videos)
    _, naive = clustered_mean(videos * 8)
    assert honest is not None
    assert naive is not None
    assert honest.high - honest.low > 2 * (naive.high - naive.low)


def test_one_value_has_no_interval_and_none_no_mean() -> None:
    assert clustered_mean([0.3]) == (0.3, None)
    with pytest.raises(ValueError, match="at least one"):
        clustered_mean([])


def test_intervals_are_finite_ordered_and_scale() -> None:
    assert wilson(3, 10).scaled(100).low == pytest.approx(100 * wilson(3, 10).low)
    cut = Interval(low=-0.1, high=1.2, method="t").scaled(100, 0, 100)
    assert (cut.low, cut.high, cut.method, cut.level) == (0, 100, "t", 0.95)
    for low, high, level in ((1, 0, 0.95), (math.nan, 1, 0.95), (0, math.inf, 0.95), (0, 1, 1.5)):
        with pytest.raises(ValueError, match=r"interval|finite|level"):
            Interval(low=low, high=high, level=level, method="x")
