"""Average precision of boxes, by hand and against VOC's procedure written as a plain loop."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from torchvision.ops import box_iou

from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.detection import (
    Boxes,
    Detected,
    Detections,
    detected,
    mean_average_precision,
    overlaps,
)

CLASSES = 3


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, np.float64).reshape(-1, 4)


def one(right: str, objects: int) -> Detected:
    """Detections by falling score, + for a right one."""
    hits = np.array([sign == "+" for sign in right], bool)
    return Detected(hits, np.arange(len(hits), 0, -1) / 10, objects)


# Overlaps


@given(st.integers(0, 2**32), st.integers(0, 5), st.integers(0, 5))
def test_overlaps_are_torchvisions(seed: int, n: int, m: int) -> None:
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 10, (n + m, 2, 2))
    all_boxes = np.concatenate([corners.min(1), corners.max(1)], 1)
    a, b = all_boxes[:n], all_boxes[n:]
    expected = box_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    np.testing.assert_allclose(overlaps(a, b), expected)


def test_overlaps_by_hand() -> None:
    found = overlaps(
        boxes((0, 0, 10, 10), (5, 5, 5, 9)),
        boxes((0, 0, 10, 10), (5, 0, 15, 10), (10, 0, 20, 10), (5, 5, 5, 9)),
    )
    np.testing.assert_allclose(found, [[1, 1 / 3, 0, 0], [0, 0, 0, 0]])


def test_boxes_of_voc_overlap_as_in_its_own_programs() -> None:
    """There both ends belong to a box, and a side is end − start + 1 pixels long."""
    random = np.random.default_rng(0)
    first = random.integers(1, 20, (2, 30, 2))
    last = first + random.integers(0, 20, (2, 30, 2))

    def pixels(start: np.ndarray, end: np.ndarray) -> set[tuple[int, int]]:
        return {(x, y) for x in range(start[0], end[0] + 1) for y in range(start[1], end[1] + 1)}

    ours = np.concatenate([first - 1, last], -1)
    found = overlaps(ours[0].astype(np.float32), ours[1].astype(np.float32))
    for i in range(30):
        for j in range(30):
            a, b = pixels(first[0, i], last[0, i]), pixels(first[1, j], last[1, j])
            assert found[i, j] == pytest.approx(len(a & b) / len(a | b))


# Average precision of a ranking


def test_average_precision_by_hand() -> None:
    ranking = one("+-+-", 3)
    np.testing.assert_allclose(ranking.recall, [1 / 3, 1 / 3, 2 / 3, 2 / 3])
    np.testing.assert_allclose(ranking.precision, [1, 1 / 2, 2 / 3, 1 / 2])
    # Recalls up to ⅓ at precision 1, up to ⅔ at ⅔, none above: 0 … 0.3, 0.4 … 0.6.
    assert ranking.average_precision("area") == pytest.approx((1 + 2 / 3) / 3)
    assert ranking.average_precision("11-point") == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)


def test_a_later_and_higher_precision_counts_for_lower_recalls() -> None:
    ranking = one("-+++", 3)
    assert ranking.average_precision("area") == pytest.approx(0.75)
    assert ranking.average_precision("11-point") == pytest.approx(0.75)


def test_recalls_of_tenths_count_as_reached() -> None:
    for objects in (10, 20, 30):
        for k in range(11):
            ranking = one("+" * (k * objects // 10), objects)
            expected = (k + 1) / 11 if k else 0.0
            assert ranking.average_precision("11-point") == pytest.approx(expected)


def test_nothing_to_find_and_nothing_found() -> None:
    for method in ("area", "11-point"):
        assert one("", 4).average_precision(method) == 0  # type: ignore[arg-type]
        assert math.isnan(one("--", 0).average_precision(method))  # type: ignore[arg-type]
        assert one("++", 2).average_precision(method) == 1  # type: ignore[arg-type]
    assert math.isnan(mean_average_precision([one("-", 0)]))
    both = [one("++", 2), one("-", 0), one("--", 3)]
    assert mean_average_precision(both) == pytest.approx(0.5)


def ap_by_definition(right: list[bool], objects: int, method: str) -> float:
    hits = [sum(right[: i + 1]) for i in range(len(right))]
    points = [(Fraction(h, objects), Fraction(h, i + 1)) for i, h in enumerate(hits)]

    def best(recall: Fraction) -> Fraction:
        return max((p for r, p in points if r >= recall), default=Fraction(0))

    if method == "11-point":
        return float(sum(best(Fraction(k, 10)) for k in range(11)) / 11)
    return float(sum(best(Fraction(k, objects)) for k in range(1, objects + 1)) / objects)


@given(st.lists(st.booleans(), max_size=30), st.integers(0, 5))
def test_average_precision_is_what_its_definition_says(right: list[bool], missed: int) -> None:
    objects = sum(right) + missed
    if objects == 0:
        return
    ranking = one("".join("-+"[hit] for hit in right), objects)
    for method in ("area", "11-point"):
        expected = ap_by_definition(right, objects, method)
        assert ranking.average_precision(method) == pytest.approx(expected)  # type: ignore[arg-type]
    if any(right) and not missed:
        # Without the envelope it is scikit-learn's, which is never more.
        plain = average_precision_score(right, ranking.scores)
        assert plain <= ranking.average_precision("area") + 1e-9


# Matching


def alone(found: list[tuple[float, ...]], truth: np.ndarray, hard: list[bool]) -> Detected:
    """One image, one class; found are (score, left, top, right, bottom)."""
    rows = np.array(found, np.float64).reshape(-1, 5)
    ours = Detections(rows[:, 1:], rows[:, 0], np.zeros(len(rows), np.int64))
    theirs = Boxes(truth, np.zeros(len(truth), np.int64), np.array(hard, bool))
    return detected([ours], [theirs], 1)[0]


def test_a_box_is_right_from_half_overlap_on() -> None:
    truth = boxes((0, 0, 10, 10))
    assert alone([(1, 0, 0, 10, 5)], truth, [False]).right.tolist() == [True]
    assert alone([(1, 0, 0, 10, 4.99)], truth, [False]).right.tolist() == [False]


def test_the_second_box_on_an_object_is_wrong() -> None:
    result = alone(
        [(0.1, 0, 0, 10, 10), (0.9, 0, 0, 10, 9), (0.5, 30, 30, 40, 40)],
        boxes((0, 0, 10, 10), (30, 30, 40, 40)), [False, False],
    )  # fmt: skip
    assert result.right.tolist() == [True, True, False]
    assert result.scores.tolist() == [0.9, 0.5, 0.1]


def test_a_box_belongs_to_the_object_it_overlaps_most_even_if_that_is_taken() -> None:
    result = alone(
        [(0.9, 0, 0, 10, 10), (0.8, 0, 0, 10, 10)],
        boxes((0, 0, 10, 10), (0, 0, 10, 8)), [False, False],
    )  # fmt: skip
    assert result.right.tolist() == [True, False]


def test_difficult_objects_are_neither_found_nor_missed() -> None:
    truth = boxes((0, 0, 10, 10), (30, 30, 40, 40))
    result = alone([(0.9, 0, 0, 10, 10), (0.8, 0, 0, 10, 9)], truth, [True, False])
    assert (result.objects, result.right.tolist()) == (1, [])
    result = alone([(0.9, 0, 0, 10, 2), (0.8, 30, 30, 40, 40)], truth, [True, False])
    assert result.right.tolist() == [False, True]
    result = alone([(0.9, 0, 0, 10, 10)], truth, [True, True])
    assert result.objects == 0
    assert math.isnan(result.average_precision())


def test_classes_and_images_are_told_apart() -> None:
    box = boxes((0, 0, 10, 10))
    found = [
        Detections(box, np.array([0.9]), np.array([1])),
        Detections(box, np.array([0.8]), np.array([0])),
    ]
    truth = [Boxes(box, np.array([0])), Boxes(box, np.array([0]))]
    first, second = detected(found, truth, 2)
    assert (first.right.tolist(), first.objects) == ([True], 2)
    assert (second.right.tolist(), second.objects) == ([False], 0)


def test_equal_scores_count_in_the_order_given() -> None:
    rows = [(0.5, 50, 50, 60, 60), (0.5, 0, 0, 10, 10)]
    truth = boxes((0, 0, 10, 10))
    assert alone(rows, truth, [False]).right.tolist() == [False, True]
    assert alone(rows[::-1], truth, [False]).right.tolist() == [True, False]


def voc_loop(
    found: list[Detections], truth: list[Boxes], label: int, overlap: float
) -> tuple[list[bool], int]:
    """The procedure of VOC's development kit: one detection after another."""
    objects = sum(
        int(mine == label and not hard)
        for image in truth
        for mine, hard in zip(image.labels, image.difficult, strict=True)  # type: ignore[arg-type]
    )
    queue = [
        (-score, i, k)
        for i, image in enumerate(found)
        for k, (score, mine) in enumerate(zip(image.scores, image.labels, strict=True))
        if mine == label
    ]
    taken: set[tuple[int, int]] = set()
    right: list[bool] = []
    for _, i, k in sorted(queue):
        best, chosen = -math.inf, -1
        for j, box in enumerate(truth[i].boxes):
            if truth[i].labels[j] == label:
                share = float(overlaps(found[i].boxes[k][None], box[None])[0, 0])
                if share > best:
                    best, chosen = share, j
        if best < overlap:
            right.append(False)
        elif not truth[i].difficult[chosen]:  # type: ignore[index]
            right.append((i, chosen) not in taken)
            taken.add((i, chosen))
    return right, objects


def some(seed: int) -> tuple[list[Detections], list[Boxes]]:
    random = np.random.default_rng(seed)

    def draw(n: int) -> np.ndarray:
        start = random.integers(0, 4, (n, 2))
        return np.concatenate([start, start + random.integers(1, 5, (n, 2))], 1).astype(np.float32)

    found, truth = [], []
    for _ in range(3):
        n, m = random.integers(0, 7, 2)
        hard = random.random(n) < 0.3
        truth.append(Boxes(draw(n), random.integers(0, CLASSES, n), hard))
        scores = random.integers(0, 6, m) / 6
        found.append(Detections(draw(m), scores, random.integers(0, CLASSES, m)))
    return found, truth


@settings(max_examples=150)
@given(st.integers(0, 2**32), st.sampled_from([0.3, 0.5, 0.75]))
def test_matching_is_that_of_vocs_loop(seed: int, overlap: float) -> None:
    found, truth = some(seed)
    for label, result in enumerate(detected(found, truth, CLASSES, overlap=overlap)):
        right, objects = voc_loop(found, truth, label, overlap)
        assert result.right.tolist() == right
        assert result.objects == objects
        assert np.all(np.diff(result.scores) <= 0)


def test_what_cannot_be_counted_is_refused() -> None:
    box, label, score = boxes((0, 0, 1, 1)), np.array([0]), np.array([0.5])
    good, mine = Boxes(box, label), Detections(box, score, label)
    with pytest.raises(InputError, match="an object has the label 3; labels are 0 to 1"):
        detected([mine], [Boxes(box, np.array([3]))], 2)
    with pytest.raises(InputError, match="a detection has the label -1; labels are 0 to 1"):
        detected([Detections(box, score, np.array([-1]))], [good], 2)
    for wrong in (
        Detections(box[0], score, label),
        Detections(box, score[:0], label),
        Detections(box, score * np.nan, label),
        Detections(np.full_like(box, np.inf), score, label),
    ):
        with pytest.raises(ValueError, match="a finite score and a label for each"):
            detected([wrong], [good], 2)
    with pytest.raises(ValueError, match="boxes found in 1 images, and objects of 0"):
        detected([mine], [], 2)
    with pytest.raises(ValueError, match="there are no images"):
        detected([], [], 2)
    for overlap in (0.0, 1.5):
        with pytest.raises(ValueError, match=r"is not in \(0, 1\]"):
            detected([mine], [good], 2, overlap=overlap)
