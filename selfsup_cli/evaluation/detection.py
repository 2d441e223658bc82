"""Average precision of found boxes, as PASCAL VOC counts it (Everingham et al., 2010, section 4).

Boxes are float [N, 4]: left, top, right and bottom edge in pixels, right and bottom beyond the
last one. Files of VOC name the first and the last pixel, counted from 1: their left and top are one
less here, their right and bottom the same, and all overlaps are those of VOC's own programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from selfsup_cli.data.boxes import Boxes
from selfsup_cli.errors import InputError

OVERLAP = 0.5
"""Intersection over union at which a box is found, in VOC."""

Area = Literal["11-point", "area"]


@dataclass(frozen=True)
class Detections:
    """Boxes found in an image: `boxes` float [N, 4], `scores` float [N], `labels` int [N]."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Detected:
    """What of one class was found, from the surest detection to the least sure.

    `right` bool [D] says which detections are right; those of difficult objects are left out.
    `scores` float [D]; `objects` is how many there are to find, difficult ones not counted.
    `images` int [D] are the places of the images that detections belong to, and `each` int [N] how
    many of the objects each of the images has.
    """

    right: np.ndarray
    scores: np.ndarray
    objects: int
    images: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    each: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def recall(self) -> np.ndarray:
        """[D] (0 … 1): the share of the objects found so far; NaN if there is none to find."""
        return np.cumsum(self.right) / (self.objects or np.nan)

    @property
    def precision(self) -> np.ndarray:
        """[D] (0 … 1): the share of the detections so far that is right."""
        return np.cumsum(self.right) / np.arange(1, len(self.right) + 1)

    def average_precision(self, method: Area = "area") -> float:
        """0 … 1, NaN for a class of which there is nothing to find.

        At each recall counts the highest precision at that recall or a higher one. `"area"` is the
        area below this curve (VOC since 2010), `"11-point"` its mean at the recalls 0, 0.1 … 1 (VOC
        2007).
        """
        if self.objects == 0:
            return float("nan")
        hits = np.cumsum(self.right)
        best = np.maximum.accumulate(self.precision[::-1])[::-1]
        if method == "area":
            return float(best[self.right].sum() / self.objects)
        # In whole numbers: 3 of 10 objects are a recall of 0.3, whatever 0.3 is in binary.
        first = np.searchsorted(10 * hits, np.arange(11) * self.objects)
        return float(np.append(best, 0.0)[first].sum() / 11)


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes [N, 4] and others [M, 4]: float64 [N, M]."""
    a, b = boxes.astype(np.float64)[:, None], others.astype(np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = sides.clip(min=0).prod(-1)
    union = _area(a) + _area(b) - shared
    out: np.ndarray = np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)
    return out


def detected(
    found: Sequence[Detections],
    truth: Sequence[Boxes],
    classes: int,
    *,
    overlap: float = OVERLAP,
) -> list[Detected]:
    """For each class, which of the boxes found in images are right.

    Boxes of all images are taken by falling score, equal ones in the order given. Each belongs to
    the object of its class that it overlaps most (the first of several). It is right if that is by
    `overlap` or more and the object has not been found before; left out if the object is difficult.
    Raises InputError for a label that is no class, ValueError for arrays that do not fit.
    """
    if len(found) != len(truth):
        raise ValueError(f"boxes found in {len(found)} images, and objects of {len(truth)}")
    if not 0 < overlap <= 1:
        raise ValueError(f"an overlap of {overlap:g} is not in (0, 1]")
    objects = np.zeros((len(truth), classes), np.int64)
    # Of each detection: its class, its score, its object (−1: none), whether that is difficult, and
    # its image.
    columns: list[tuple[np.ndarray, ...]] = []
    before = 0
    for place, (ours, theirs) in enumerate(zip(found, truth, strict=True)):
        difficult = _checked(ours, theirs, classes)
        own = theirs.labels[~difficult].astype(np.int64)
        objects[place] = np.bincount(own, minlength=classes)
        target, easy = _targets(ours, theirs, difficult, overlap)
        target = np.where(target < 0, -1, before + target)
        columns.append((ours.labels, ours.scores, target, easy, np.full(len(target), place)))
        before += len(theirs.boxes)
    if not columns:
        raise ValueError("there are no images")
    labels, scores, targets, easy, places = (
        np.concatenate(column) for column in zip(*columns, strict=True)
    )
    return [
        _of_class(scores[mine], targets[mine], easy[mine], places[mine], objects[:, index])
        for index, mine in enumerate(labels == index for index in range(classes))
    ]


def mean_average_precision(per_class: Sequence[Detected], method: Area = "area") -> float:
    """Mean of the classes' average precisions (0 … 1); of those of which there is something to
    find. NaN if there is none."""
    each = [one.average_precision(method) for one in per_class if one.objects]
    return float(np.mean(each)) if each else float("nan")


def _of_class(
    scores: np.ndarray,
    targets: np.ndarray,
    easy: np.ndarray,
    places: np.ndarray,
    objects: np.ndarray,
) -> Detected:
    order = np.argsort(-scores, kind="stable")
    scores, targets, easy, places = scores[order], targets[order], easy[order], places[order]
    right = np.zeros(len(scores), bool)
    _, first = np.unique(targets, return_index=True)
    right[first] = True
    right &= (targets >= 0) & easy
    counted = (targets < 0) | easy
    return Detected(right[counted], scores[counted], int(objects.sum()), places[counted], objects)


def _targets(
    found: Detections, truth: Boxes, difficult: np.ndarray, overlap: float
) -> tuple[np.ndarray, np.ndarray]:
    """For each detection the object that it overlaps most and enough (−1: none), and False where
    that is difficult."""
    if not len(truth.boxes):
        return np.full(len(found.boxes), -1), np.ones(len(found.boxes), bool)
    shares = overlaps(found.boxes, truth.boxes)
    shares[found.labels[:, None] != truth.labels[None]] = -1
    target = shares.argmax(1)
    target[shares.max(1) < overlap] = -1
    return target, (target < 0) | ~difficult[target]


def _checked(found: Detections, truth: Boxes, classes: int) -> np.ndarray:
    """Which objects are difficult; raises for what cannot be counted."""
    n, d = len(truth.boxes), len(found.boxes)
    difficult = np.zeros(n, bool) if truth.difficult is None else truth.difficult.astype(bool)
    shapes = (
        truth.boxes.shape == (n, 4) and truth.labels.shape == (n,) and difficult.shape == (n,),
        found.boxes.shape == (d, 4) and found.labels.shape == found.scores.shape == (d,),
    )
    if not all(shapes) or not (np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()):
        raise ValueError("boxes are finite [N, 4], with a finite score and a label for each")
    for labels, whose in ((truth.labels, "an object"), (found.labels, "a detection")):
        if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
            strange = labels[(labels < 0) | (labels >= classes)][0]
            raise InputError(
                f"{whose} has the label {strange}; labels are 0 to {classes - 1}", kind="boxes"
            )
    return difficult


def _area(boxes: np.ndarray) -> np.ndarray:
    out: np.ndarray = (boxes[..., 2:] - boxes[..., :2]).clip(min=0).prod(-1)
    return out
