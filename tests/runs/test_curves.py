"""A curve as a line of text, its trend, and which curves are shown first."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from selfsup_cli.runs.curves import SPARKS, panels, running_mean, spark, telling
from selfsup_cli.runs.report import Curve

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def curve(*ys: float, name: str = "c", y_label: str = "y") -> Curve:
    return Curve(name=name, x_label="x", y_label=y_label, points=list(enumerate(ys)))


@given(st.lists(FINITE, max_size=50), st.integers(1, 20))
@example([1.7e308, 1.7e308, -1.7e308], 1)
@example([sys.float_info.max] * 3, 1)
@example([5e-324, 0.0], 2)
def test_a_line_is_as_wide_as_it_may_be(values: list[float], width: int) -> None:
    line = spark(curve(*values), width)
    assert len(line) == min(width, len(values))
    assert set(line) <= set(SPARKS)


def test_the_lowest_and_the_highest_have_the_lowest_and_the_highest_block() -> None:
    assert spark(curve(*range(8)), 8) == SPARKS
    assert spark(curve(5, 5, -1, 9), 4)[2:] == "▁█"
    assert spark(curve(0, 2, 10, 12), 2) == "▁█"
    assert spark(curve(3, 3), 2) == "▁▁"


@pytest.mark.parametrize("n", [1, 2, 59, 400])
def test_the_trend_is_the_mean_around_each_point(n: int) -> None:
    values = np.random.default_rng(0).normal(size=n)
    half = max(1, n // 40) // 2 + 1
    wanted = [values[max(0, i - half) : i + half + 1].mean() for i in range(n)]
    np.testing.assert_allclose(running_mean(values.tolist(), 40), wanted, atol=1e-12)


def test_details_and_background_are_shown_last() -> None:
    names = ["lr", "loss_d", "loss_d_real", "loss_g", "fid", "embedding_rank"]
    assert [one.name for one in telling([curve(1, 2, name=name) for name in names])] == [
        "loss_d", "loss_g", "fid",
    ]  # fmt: skip
    many = [curve(1, 2, name=f"n{i}") for i in range(9)]
    assert telling(many, most=3) == many[:3]
    assert telling([curve(1)]) == []


def test_a_panel_needs_a_curve_with_two_points() -> None:
    a, b, c = curve(1, 2, y_label="p"), curve(3, y_label="p"), curve(4, y_label="q")
    assert panels([a, b, c, curve(y_label="p")]) == {"p": [a, b]}
