"""How good found boxes are: average precision as PASCAL VOC and as COCO count it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from selfsup_cli.data.boxes import BoxedImages, Boxes
from selfsup_cli.errors import MachineError
from selfsup_cli.evaluation.average_precision import RESAMPLED, extended, mean_of_finite
from selfsup_cli.evaluation.detection import (
    OVERLAP,
    Area,
    Detected,
    Detections,
    detected,
    mean_average_precision,
)
from selfsup_cli.randomness import derive
from selfsup_cli.runs.report import Measurement, ProtocolValue
from selfsup_cli.runs.statistics import Interval

_BLOCK = 1 << 23
METRICS: dict[Area, str] = {
    "11-point": "mean average precision (VOC 2007, 11 points)",
    "area": "mean average precision (VOC, area)",
}
_COCO = {
    "map": ("mean average precision (COCO, 0.50 to 0.95)", "COCO-mAP"),
    "map_50": ("mean average precision (COCO, 0.50)", "COCO-mAP-50"),
    "map_75": ("mean average precision (COCO, 0.75)", "COCO-mAP-75"),
}


@dataclass(frozen=True)
class FoundBoxes:
    """What a detector found in images of `source`: a `Detections` for each, beside its objects."""

    source: BoxedImages
    found: Sequence[Detections]
    classes: tuple[str, ...]

    @property
    def truth(self) -> Sequence[Boxes]:
        """The objects of each image."""
        return self.source.boxes

    def per_class(self, overlap: float = OVERLAP) -> list[Detected]:
        """Which detections of each class are right."""
        return detected(self.found, self.truth, len(self.classes), overlap=overlap)


def require_coco() -> tuple[Any, Any]:
    """pycocotools' data set and its evaluation. Raises MachineError where it is not installed."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise MachineError(
            "average precision as COCO counts it takes the package pycocotools, which is not "
            "installed",
            kind="missing-package",
            hint="pip install 'selfsup[detect]'",
        ) from error
    return COCO, COCOeval


def coco(found: Sequence[Detections], truth: Sequence[Boxes], classes: int) -> dict[str, Any]:
    """COCO's average precisions by its own program, shares (0 … 1).

    `map` over overlaps of 0.50 to 0.95, `map_50`, `map_75`, and `classes`, by label, of the first
    of them; without those of which there is nothing to find. At most 100 boxes of a class and image
    count, the surest. Difficult objects count as crowds: whatever lies on them is no mistake.
    """
    data, evaluation = require_coco()
    images = [{"id": place} for place in range(1, len(truth) + 1)]
    every = data()
    objects = [
        {**row, "iscrowd": int(crowd), "id": number}
        for number, (row, crowd) in enumerate(
            (
                (row, not easy)
                for place, one in enumerate(truth, 1)
                for row, easy in zip(_rows(place, one), one.easy.tolist(), strict=True)
            ),
            1,
        )
    ]
    categories = [{"id": label} for label in range(classes)]
    every.dataset = {"images": images, "annotations": objects, "categories": categories}
    ours = data()
    detections = [
        {**row, "score": score, "id": number}
        for number, (row, score) in enumerate(
            (
                (row, score)
                for place, one in enumerate(found, 1)
                for row, score in zip(_rows(place, one), one.scores.tolist(), strict=True)
            ),
            1,
        )
    ]
    ours.dataset = {**every.dataset, "annotations": detections}
    # It prints how far it has come, and stdout is for results alone.
    with contextlib.redirect_stdout(io.StringIO()):
        every.createIndex()
        ours.createIndex()
        counted = evaluation(every, ours, "bbox")
        counted.evaluate()
        counted.accumulate()
    # Overlaps, recalls, classes, ranges of area (all first), numbers of detections (most last).
    precision = counted.eval["precision"][..., 0, -1]
    each = {
        label: float(own[own >= 0].mean())
        for label, own in enumerate(np.moveaxis(precision, 2, 0))
        if (own >= 0).any()
    }
    out: dict[str, Any] = {"classes": each}
    for name, overlaps in (("map", slice(None)), ("map_50", slice(1)), ("map_75", slice(5, 6))):
        own = precision[overlaps]
        if (own >= 0).any():
            out[name] = float(own[own >= 0].mean())
    return out


def _rows(place: int, one: Boxes | Detections) -> list[dict[str, Any]]:
    """The boxes of an image as COCO has them: left, top, width and height."""
    sides = one.boxes[:, 2:] - one.boxes[:, :2]
    rows = np.concatenate([one.boxes[:, :2], sides], 1).tolist()
    areas = sides.prod(1).tolist()
    return [
        {"image_id": place, "category_id": label, "bbox": row, "area": area, "iscrowd": 0}
        for row, area, label in zip(rows, areas, one.labels.tolist(), strict=True)
    ]


def measurements(
    found: FoundBoxes, about: Mapping[str, Any], protocol: Mapping[str, ProtocolValue]
) -> list[Measurement]:
    """VOC's two ways of counting with intervals over images, and COCO's three numbers."""
    per_class = found.per_class()
    missing: list[bool | int | float | str] = [
        name for name, one in zip(found.classes, per_class, strict=True) if not one.objects
    ]
    common = {
        **protocol,
        "classes": len(found.classes) - len(missing),
        "objects": sum(one.objects for one in per_class),
        "difficult_objects": int(sum((~one.easy).sum() for one in found.truth)),
        **({"not_measured": missing} if missing else {}),
    }
    rows = []
    for method, metric in METRICS.items():
        value = mean_average_precision(per_class, method)
        interval = mean_interval(per_class, method)
        each: list[bool | int | float | str] = [
            f"{name}: {100 * one.average_precision(method):.1f} %"
            for name, one in zip(found.classes, per_class, strict=True)
            if one.objects
        ]
        chance, chance_is = whole_images(found, method), "the whole image as a box of every class"
        rows.append(
            Measurement(
                **about,
                name="mAP-11" if method == "11-point" else "mAP",
                metric=metric,
                unit="%",
                value=100 * value,
                interval=None if interval is None else interval.scaled(100, 0, 100),
                n=len(found.truth),
                chance=100 * chance,
                chance_is=chance_is,
                protocol={**common, "overlap": OVERLAP, "per_class": each},
            )
        )
    counted = coco(found.found, found.truth, len(found.classes))
    each_class: list[bool | int | float | str] = [
        f"{found.classes[k]}: {100 * share:.1f} %" for k, share in counted["classes"].items()
    ]
    for key, (metric, name) in _COCO.items():
        if key in counted:
            extra: dict[str, ProtocolValue] = {"per_class": each_class} if key == "map" else {}
            rows.append(
                Measurement(
                    **about,
                    name=name,
                    metric=metric,
                    unit="%",
                    value=100 * counted[key],
                    n=len(found.truth),
                    protocol={**common, "counted_by": "pycocotools", **extra},
                )
            )
    return rows


def whole_images(found: FoundBoxes, method: Area) -> float:
    """Mean average precision (0 … 1) of the whole image as a box of every class, all equally sure.

    There is one threshold then: the share p of images in which that is right is the precision
    wherever recall is no more than the share r of objects that are so found.
    """
    sizes = found.source.sizes
    every = np.arange(len(found.classes))
    boxes = [
        Detections(np.tile([0.0, 0.0, width, height], (len(every), 1)), np.ones(len(every)), every)
        for height, width in sizes.tolist()
    ]
    shares = []
    for one in detected(boxes, found.truth, len(every)):
        if one.objects and len(one.right):
            hits, n = int(one.right.sum()), len(one.right)
            points = 10 * hits // one.objects + 1
            recall = hits / one.objects if method == "area" else points / 11
            shares.append(hits / n * recall)
        elif one.objects:
            shares.append(0.0)
    return float(np.mean(shares)) if shares else 0.0


def mean_interval(per_class: Sequence[Detected], method: Area) -> Interval | None:
    """A 95 % interval (0 … 1) of the mean average precision, by drawing the images again.

    Which detections are right is settled within each image, so draws only count them anew. None
    for a single image. See `average_precision.mean_interval`.
    """
    known = [one for one in per_class if one.objects]
    n = len(known[0].each) if known else 0
    if n < 2:
        return None
    own = np.array([one.average_precision(method) for one in known])
    random = np.random.default_rng(derive(0, "detections"))
    most = max(1, *(len(one.right) for one in known))
    rows = max(1, min(RESAMPLED, _BLOCK // max(most, n)))
    beyond: list[np.ndarray] = []
    for start in range(0, RESAMPLED, rows):
        size = min(rows, RESAMPLED - start)
        weights = random.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)
        drawn = np.stack([_drawn(one, weights, method) for one in known])
        beyond.append(mean_of_finite(drawn - own[:, None]))
    every = np.concatenate(beyond)
    return extended(float(own.mean()), every, n) if len(every) else None


def _drawn(one: Detected, weights: np.ndarray, method: Area) -> np.ndarray:
    """Average precision [K] where images count as often as one of K rows `weights` [K, N] says."""
    objects = weights @ one.each
    counts = weights[:, one.images]
    hits = np.cumsum(counts * one.right, axis=1)
    seen = np.cumsum(counts, axis=1)
    precision = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 0)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        if method == "area":
            area: np.ndarray = (best * counts * one.right).sum(1) / objects
            return area
    out = np.full(len(weights), np.nan)
    for row in np.flatnonzero(objects > 0):
        first = np.searchsorted(10 * hits[row], np.arange(11) * objects[row])
        out[row] = np.append(best[row], 0.0)[first].sum() / 11
    return out
