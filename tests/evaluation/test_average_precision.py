"""Average precision, its mean, and how sure that is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.average_precision import average_precision, mean_interval
from selfsup_cli.evaluation.classify import Marks, of_attributes, precisions

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
    shares = [(found.truth[:, a] == 1).sum() / (found.truth[:, a] != 255).sum() for a in range(3)]
    assert row.chance == pytest.approx(100 * np.mean(shares))
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


def test_the_interval_is_a_function_of_the_answers() -> None:
    found = marks()
    truths = [found.truth[:, 0].astype(np.int8)]
    truths[0][found.truth[:, 0] == 255] = -1
    one, two = (mean_interval(truths, [found.scores[:, 0]], 0.8) for _ in range(2))
    assert one == two
    assert mean_interval([truths[0][:1]], [found.scores[:1, 0]], 1.0) is None


def test_attributes_that_all_or_none_have_are_left_out_and_named() -> None:
    found = marks()
    found.truth[:, 1] = 1
    row = of_attributes(found, ABOUT, {"x": 1})
    assert row.protocol["not_measured"] == ["b"]
    assert row.protocol["attributes"] == 2
    found.truth[:] = 0
    with pytest.raises(InputError, match="nothing to measure"):
        of_attributes(found, ABOUT, {"x": 1})
