"""Proposals from the cache against searching again, and average precision against its libraries."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import measure
import numpy as np
import torch
from PIL import Image, ImageDraw

from selfsup_cli.config.detect import BoxedData
from selfsup_cli.data.boxed_source import open_boxed
from selfsup_cli.data.boxes import Boxes
from selfsup_cli.data.proposals import SelectiveSearch, cache_folder, searched
from selfsup_cli.evaluation.detect_scores import coco, mean_interval
from selfsup_cli.evaluation.detection import Detections, detected, mean_average_precision

IMAGES, SIDE = 8, 320
TESTED, CLASSES, FOUND = 500, 20, 40
CACHE, COCO, VOC, INTERVAL = "≥ 200", "≤ 1.5", "≤ 0.5", "≤ 5 s"
LIMITS: dict[str, str] = {}


def rows() -> list[measure.Row]:
    """How many times as fast the cache is; time of our numbers over that of the library alone."""
    return [*_proposals(), *_precision()]


def _proposals() -> list[measure.Row]:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SELFSUP_CACHE"] = f"{folder}/cache"
        root = Path(folder) / "images"
        root.mkdir()
        random = np.random.default_rng(0)
        for number in range(IMAGES):
            _draw(root / f"{number}.png", random)
        source = open_boxed(BoxedData(source=str(root)), "all", labels=True, workers=0)
        how = SelectiveSearch(side=SIDE)

        def again() -> object:
            for path in cache_folder(source, how).glob("*"):
                path.unlink()
            return searched(source, how, workers=0)

        spent = measure.interleaved(
            {"again": again, "cached": lambda: searched(source, how, workers=0)}, rounds=3
        )
        name = f"proposals of {IMAGES} images of {SIDE} pixels, cached"
        return [(name, "searched again", spent["again"] / spent["cached"], CACHE)]


def _draw(path: Path, random: np.random.Generator) -> None:
    """A picture of many coloured shapes, and its annotation."""
    image = Image.new("RGB", (SIDE, SIDE * 3 // 4), (120, 140, 120))
    draw = ImageDraw.Draw(image)
    for _ in range(40):
        x, y, w, h = (int(v) for v in random.integers((0, 0, 10, 10), (300, 220, 90, 90)))
        colour = tuple(int(v) for v in random.integers(0, 256, 3))
        (draw.ellipse if x % 2 else draw.rectangle)((x, y, x + w, y + h), colour)
    pixels = np.asarray(image, np.int64) + random.integers(-12, 13, (SIDE * 3 // 4, SIDE, 3))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    path.with_suffix(".xml").write_text(
        f"<annotation><object><name>a</name>{box}</object></annotation>"
    )


def _precision() -> list[measure.Row]:
    found, truth = _made()
    contenders: dict[str, Callable[[], object]] = {
        "voc": lambda: mean_average_precision(detected(found, truth, CLASSES)),
        "coco": lambda: coco(found, truth, CLASSES),
        "pycocotools": _alone(found, truth),
    }
    metric = _torchmetrics(found, truth)
    if metric is not None:
        contenders["torchmetrics"] = metric
    spent = measure.interleaved(contenders, rounds=3)
    name = f"{{}} mAP of {FOUND} boxes in each of {TESTED} images, {CLASSES} classes"
    absent = measure.ABSENT
    began = time.process_time()
    mean_interval(detected(found, truth, CLASSES), "11-point")
    interval = time.process_time() - began
    return [
        (name.format("COCO"), "pycocotools", spent["coco"] / spent["pycocotools"], COCO),
        (
            name.format("COCO"),
            "torchmetrics",
            spent["coco"] / spent.get("torchmetrics", absent),
            COCO,
        ),
        (name.format("VOC"), "pycocotools", spent["voc"] / spent["pycocotools"], VOC),
        ("seconds for the interval of VOC's, 500 draws", "–", interval, INTERVAL),
    ]


def _made() -> tuple[list[Detections], list[Boxes]]:
    random = np.random.default_rng(0)
    found, truth = [], []
    for _ in range(TESTED):
        count = int(random.integers(1, 6))
        corners = random.uniform(0, 300, (count, 2))
        boxes = np.concatenate([corners, corners + random.uniform(20, 150, (count, 2))], 1)
        truth.append(Boxes(boxes, random.integers(0, CLASSES, count)))
        picked = random.integers(0, count, FOUND)
        near = boxes[picked] + random.normal(0, 12, (FOUND, 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        guessed = random.integers(0, CLASSES, FOUND)
        labels = np.where(random.random(FOUND) < 0.7, truth[-1].labels[picked], guessed)
        found.append(Detections(near, random.random(FOUND), labels))
    return found, truth


def _alone(found: list[Detections], truth: list[Boxes]) -> Callable[[], object]:
    """pycocotools on dictionaries that are there already."""
    from pycocotools import coco as library
    from pycocotools.cocoeval import COCOeval

    def listed(ones: list[Any], *, scored: bool) -> list[dict[str, Any]]:
        out: list[dict[str, Any]] = []
        for place, one in enumerate(ones, 1):
            for k, (left, top, right, bottom) in enumerate(one.boxes.tolist()):
                box = [left, top, right - left, bottom - top]
                row = {"image_id": place, "category_id": int(one.labels[k]), "bbox": box}
                extra = {"id": len(out) + 1, "iscrowd": 0, "area": box[2] * box[3]}
                out.append({**row, **extra, **({"score": one.scores[k]} if scored else {})})
        return out

    images = [{"id": place} for place in range(1, len(truth) + 1)]
    common = {"images": images, "categories": [{"id": label} for label in range(CLASSES)]}
    objects, boxes = listed(truth, scored=False), listed(found, scored=True)

    def run() -> object:
        with contextlib.redirect_stdout(io.StringIO()):
            both = []
            for rows_ in (objects, boxes):
                data = library.COCO()
                data.dataset = {**common, "annotations": [dict(row) for row in rows_]}
                data.createIndex()
                both.append(data)
            counted = COCOeval(*both, "bbox")
            counted.evaluate()
            counted.accumulate()
        return counted

    return run


def _torchmetrics(found: list[Detections], truth: list[Boxes]) -> Callable[[], object] | None:
    try:
        from torchmetrics.detection import MeanAveragePrecision
    except ImportError:
        return None

    def tensors(one: Any, *names: str) -> dict[str, torch.Tensor]:
        return {name: torch.as_tensor(getattr(one, name)) for name in names}

    ours = [tensors(one, "boxes", "labels", "scores") for one in found]
    theirs = [tensors(one, "boxes", "labels") for one in truth]

    def run() -> object:
        metric = MeanAveragePrecision(class_metrics=True, backend="pycocotools")
        metric.update(ours, theirs)
        return SimpleNamespace(**metric.compute())

    return run


if __name__ == "__main__":
    measure.main(rows, LIMITS)
