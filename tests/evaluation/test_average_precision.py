"""Average precision, its mean, and how sure that is."""

from __future__ import annotations

import warnings
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.average_precision import (
    average_precision,
    mean_interval,
    random_precision,
)
from selfsup_cli.evaluation.classify import Marks, chances, of_attributes, precisions
from selfsup_cli.runs.report import at_chance

ABOUT = {
    "task": "classify", "subject": "learned", "dataset": "d", "split": "s", "layer": None,
}  # fmt: skip


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=40))
def test_it_is_that_of_scikit_learn_also_where_scores_are_equal(
    rows: list[tuple[bool, int]],
) -> None:
    truth = np.array([one for one, _ in rows])
    scores = np.array([one / 7 for _, one in rows])
    if not truth.any():
        assert np.isnan(average_precision(truth, scores)[0])
        return
    expected = average_precision_score(truth, scores)
    assert average_precision(truth, scores)[0] == pytest.approx(expected)


def test_weights_count_an_image_as_often_as_they_say() -> None:
    random = np.random.default_rng(0)
    truth, scores = random.random(30) < 0.4, random.integers(0, 9, 30) / 9
    weights = random.integers(0, 4, (3, 30))
    found = average_precision(truth, scores, weights)
    for row, one in zip(weights, found, strict=True):
        again = average_precision_score(np.repeat(truth, row), np.repeat(scores, row))
        assert one == pytest.approx(again)


def marks(n: int = 200, seed: int = 0, skill: float = 1.0) -> Marks:
    random = np.random.default_rng(seed)
    truth = (random.random((n, 3)) < [0.5, 0.2, 0.8]).astype(np.uint8)
    scores = 1 / (1 + np.exp(-skill * (2 * truth - 1) - random.normal(size=truth.shape)))
    truth[random.random(truth.shape) < 0.1] = 255
    return Marks([str(k) for k in range(n)], truth, scores, ("a", "b", "c"))


def test_what_is_not_known_does_not_count() -> None:
    found = marks()
    each = precisions(found)
    for a, name in enumerate("abc"):
        known = found.truth[:, a] != 255
        expected = average_precision_score(found.truth[known, a], found.scores[known, a])
        assert each[name] == pytest.approx(expected)
    row = of_attributes(found, ABOUT, {"x": 1})
    assert row.value == pytest.approx(100 * np.mean(list(each.values())))
    counts = [((found.truth[:, a] == 1).sum(), (found.truth[:, a] != 255).sum()) for a in range(3)]
    assert all(n < 200 for _, n in counts)
    assert row.chance == pytest.approx(100 * np.mean([random_precision(*one) for one in counts]))
    assert row.chance_is == "what a random order gets on average"
    assert (row.metric, row.unit, row.n) == ("mean average precision", "%", 200)


def test_the_interval_covers_what_other_images_would_give() -> None:
    true = of_attributes(marks(20000, seed=1), ABOUT, {"x": 1}).value
    hit = 0
    for seed in range(2, 32):
        interval = of_attributes(marks(150, seed=seed), ABOUT, {"x": 1}).interval
        assert interval is not None
        assert interval.high - interval.low < 20
        hit += interval.low <= true <= interval.high
    assert 25 <= hit <= 30


@pytest.mark.parametrize("n", range(2, 8))
def test_a_random_order_gets_the_mean_over_all_orders(n: int) -> None:
    for positives in range(1, n + 1):
        truth = np.arange(n) < positives
        every = [average_precision(truth, -np.array(p, float))[0] for p in permutations(range(n))]
        assert random_precision(positives, n) == pytest.approx(np.mean(every))


def test_a_random_order_gets_more_than_the_share_of_positives() -> None:
    random = np.random.default_rng(3)
    truth = np.arange(60) < 5
    drawn = np.array([average_precision(truth, random.random(60))[0] for _ in range(4000)])
    error = drawn.std() / np.sqrt(len(drawn))
    assert abs(random_precision(5, 60) - drawn.mean()) < 4 * error
    assert random_precision(5, 60) > 5 / 60 + 10 * error
    with pytest.raises(ValueError, match="0 positives among 60"):
        random_precision(0, 60)


def rare(seed: int, skill: float, n: int = 200) -> Marks:
    """40 attributes that a tenth of the images have."""
    random = np.random.default_rng(seed)
    truth = (random.random((n, 40)) < 0.1).astype(np.uint8)
    scores = random.normal(size=truth.shape) + skill * truth
    return Marks([str(k) for k in range(n)], truth, scores, tuple(map(str, range(40))))


@pytest.mark.parametrize(("n", "width"), [(200, 14), (50, 30)])
def test_the_interval_covers_the_population_where_attributes_are_many_and_rare(
    n: int, width: float
) -> None:
    """The percentile bootstrap moved onto the value misses nearly two of three, all above."""
    random = np.random.default_rng(9)
    truth = random.random(1_000_000) < 0.1
    true = 100 * average_precision(truth, random.normal(size=truth.shape) + truth)[0]
    hit = 0
    for seed in range(20):
        row = of_attributes(rare(seed, 1.0, n), ABOUT, {"x": 1})
        assert row.interval is not None
        assert row.interval.low < row.value < row.interval.high
        assert row.interval.high - row.interval.low < width
        hit += row.interval.low <= true <= row.interval.high
    assert hit >= 17


def test_scores_that_know_nothing_are_at_chance() -> None:
    """Neither above nor, though the interval is about the population, below a random order."""
    rows = [of_attributes(rare(seed, 0.0), ABOUT, {"x": 1}) for seed in range(20)]
    assert sum(at_chance(row) is True for row in rows) >= 18
    assert all(row.interval and row.interval.low <= row.value <= row.interval.high for row in rows)
    assert rows[0].interval is not None
    assert "basic bootstrap" in rows[0].interval.method


def test_an_interval_of_a_rare_attribute_is_told_without_a_warning() -> None:
    truth = np.zeros(12, np.int8)
    truth[3] = 1
    scores = np.linspace(0, 1, 12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = mean_interval([truth, truth], [scores, -scores])
        nothing = mean_interval([np.zeros(12, np.int8)], [scores])
    assert found is not None
    assert nothing is None
    value = np.mean([average_precision(truth > 0, s)[0] for s in (scores, -scores)])
    assert 0 <= found.low <= value <= found.high <= 1


def test_the_interval_is_a_function_of_the_answers() -> None:
    found = marks()
    truths = [found.truth[:, 0].astype(np.int8)]
    truths[0][found.truth[:, 0] == 255] = -1
    one, two = (mean_interval(truths, [found.scores[:, 0]]) for _ in range(2))
    assert one == two
    assert mean_interval([truths[0][:1]], [found.scores[:1, 0]]) is None


def test_attributes_that_all_or_none_have_are_left_out_and_named() -> None:
    found = marks()
    found.truth[:, 1] = 1
    row = of_attributes(found, ABOUT, {"x": 1})
    assert row.protocol["not_measured"] == ["b"]
    assert row.protocol["attributes"] == 2
    assert list(chances(found)) == list(precisions(found)) == ["a", "c"]
    found.truth[:] = 0
    with pytest.raises(InputError, match="nothing to measure"):
        of_attributes(found, ABOUT, {"x": 1})
