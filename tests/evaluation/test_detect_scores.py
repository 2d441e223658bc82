"""Numbers of found boxes by hand, and against loops and pycocotools used alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from selfsup_cli.data.boxes import Boxes
from selfsup_cli.evaluation.detect_scores import (
    FoundBoxes,
    coco,
    mean_interval,
    measurements,
    whole_images,
)
from selfsup_cli.evaluation.detection import Area, Detections, detected, mean_average_precision

ABOUT = {"task": "detect", "subject": "learned", "dataset": "d", "split": "s", "layer": "conv5"}


def rows(*boxes: tuple[float, ...]) -> np.ndarray:
    return np.array(boxes, np.float64).reshape(-1, 4)


def made(seed: int, images: int = 12, classes: int = 3) -> tuple[list[Detections], list[Boxes]]:
    """Objects, and what is found near them or anywhere."""
    random = np.random.default_rng(seed)
    found, truth = [], []
    for _ in range(images):
        count = int(random.integers(0, 4))
        corners = random.uniform(0, 60, (count, 2))
        boxes = np.concatenate([corners, corners + random.uniform(5, 40, (count, 2))], 1)
        labels = random.integers(0, classes, count)
        truth.append(Boxes(boxes, labels, random.random(count) < 0.2))
        near = np.repeat(boxes, 2, 0) + random.normal(0, 3, (2 * count, 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        near_labels = np.where(random.random(2 * count) < 0.8, np.repeat(labels, 2), 0)
        found.append(Detections(near, random.random(2 * count), near_labels))
    return found, truth


def source_of(truth: list[Boxes], side: int = 100) -> Any:
    return SimpleNamespace(boxes=truth, sizes=np.full((len(truth), 2), side))


def test_coco_by_hand() -> None:
    """Two objects, one found at an overlap of 0.82 and one not: right up to 0.80, 7 of 10 steps."""
    truth = [Boxes(rows((0, 0, 10, 10), (50, 50, 60, 60)), np.array([0, 0]))]
    found = [Detections(rows((0, 0, 10, 8.2)), np.array([0.9]), np.array([0]))]
    got = coco(found, truth, 1)
    # Of 101 recalls, the 51 up to one half have precision 1.
    assert got["map_50"] == pytest.approx(51 / 101, abs=1e-6)
    assert got["map"] == pytest.approx(0.7 * 51 / 101, abs=1e-6)
    assert got["classes"] == {0: pytest.approx(0.7 * 51 / 101, abs=1e-6)}


def test_crowds_need_not_be_found() -> None:
    boxes, labels = rows((0, 0, 10, 10), (50, 50, 60, 60)), np.array([0, 0])
    found = [Detections(boxes, np.array([0.5, 0.9]), labels)]
    easy = coco(found, [Boxes(boxes, labels, np.array([False, True]))], 1)
    assert easy["map"] == pytest.approx(1)
    alone = coco([Detections(boxes[:1], np.array([0.5]), labels[:1])], [Boxes(boxes, labels)], 1)
    assert alone["map"] == pytest.approx(51 / 101, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_coco_is_what_torchmetrics_says(seed: int) -> None:
    import torch
    from torchmetrics.detection import MeanAveragePrecision

    found, truth = made(seed)
    # Its own recalls are rounded to single precision, so that 0.3 is more than 3 of 10 objects.
    metric = MeanAveragePrecision(
        class_metrics=True,
        backend="pycocotools",
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=np.linspace(0, 1, 101).tolist(),
    )

    def tensors(one: Any, **more: Any) -> dict[str, Any]:
        parts = {"boxes": one.boxes, "labels": one.labels, **more}
        return {name: torch.as_tensor(value) for name, value in parts.items()}

    metric.update(
        [tensors(one, scores=one.scores) for one in found],
        [tensors(one, iscrowd=(~one.easy).astype(int)) for one in truth],
    )
    expected = metric.compute()
    got = coco(found, truth, 3)
    for name in ("map", "map_50", "map_75"):
        assert got[name] == pytest.approx(float(expected[name]), abs=1e-5)
    assert list(got["classes"].values()) == pytest.approx(expected["map_per_class"].tolist(), 1e-5)


@pytest.mark.parametrize("method", ["11-point", "area"])
def test_the_whole_image_is_what_needs_no_network(method: Area) -> None:
    """One of two images is filled by a bird; there is another bird: 1 of 2 right, 1 of 2 found."""
    truth = [
        Boxes(rows((0, 0, 100, 100), (10, 10, 20, 20)), np.array([0, 0])),
        Boxes(rows((0, 0, 30, 30)), np.array([1])),
    ]
    got = whole_images(FoundBoxes(source_of(truth), [], ("bird", "fish")), method)
    bird = 1 / 2 * (1 / 2 if method == "area" else 6 / 11)
    assert got == pytest.approx((bird + 0) / 2)


def repeated(found: list[Detections], truth: list[Boxes], chosen: np.ndarray) -> float:
    per_class = detected([found[i] for i in chosen], [truth[i] for i in chosen], 3)
    return mean_average_precision(per_class)


def test_draws_are_those_of_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """What images that are drawn again change, as if they had been tested on again."""
    found, truth = made(3)
    per_class = detected(found, truth, 3)
    from selfsup_cli.evaluation import detect_scores

    kept: list[np.ndarray] = []
    monkeypatch.setattr(detect_scores, "extended", lambda value, beyond, n: kept.append(beyond))
    mean_interval(per_class, "area")
    random = np.random.default_rng(detect_scores.derive(0, "detections"))
    weights = random.multinomial(12, np.full(12, 1 / 12), size=500)
    own = mean_average_precision(per_class)
    loop = [repeated(found, truth, np.repeat(np.arange(12), row)) - own for row in weights[:40]]
    # A detection that counts twice is one step of recall here, and two there.
    assert np.abs(kept[0][:40] - loop).max() < 0.05
    assert np.abs(kept[0][:40] - loop).mean() < 0.01


def test_an_interval_holds_its_value_and_narrows() -> None:
    few, many = (
        mean_interval(detected(*made(5, images=count), 3), "11-point") for count in (12, 120)
    )
    assert few is not None
    assert many is not None
    value = mean_average_precision(detected(*made(5, images=12), 3), "11-point")
    assert few.low <= value <= few.high
    assert many.high - many.low < few.high - few.low
    assert mean_interval(detected(*made(5, images=1), 3), "area") is None


def test_what_is_reported() -> None:
    found, truth = made(7)
    names = ("bird", "fish", "cow", "whale")
    got = measurements(FoundBoxes(source_of(truth), found, names), ABOUT, {"a": 1})
    assert [row.name for row in got] == [
        "mAP-11", "mAP", "COCO-mAP", "COCO-mAP-50", "COCO-mAP-75",
    ]  # fmt: skip
    per_class = detected(found, truth, 4)
    area = got[1]
    assert area.value == pytest.approx(100 * mean_average_precision(per_class))
    assert area.protocol["not_measured"] == ["whale"]
    assert area.protocol["classes"] == 3
    assert area.protocol["objects"] == sum(one.objects for one in per_class)
    assert area.protocol["per_class"] == [
        f"{name}: {100 * one.average_precision():.1f} %"
        for name, one in zip(names[:3], per_class, strict=False)
    ]
    assert area.n == 12
    assert area.interval is not None
    assert got[2].protocol["counted_by"] == "pycocotools"
