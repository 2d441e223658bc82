"""How well every pixel is classified: mean intersection over union, and pixel accuracy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selfsup_cli.errors import InputError

IGNORED = 255
"""Label of pixels that do not count, as along the outlines in PASCAL VOC."""


@dataclass(frozen=True)
class Segmented:
    """What of a data set was found, from its confusion matrix (Long et al., 2015).

    `confusion` int64 [K, K] counts pixels, a row for each true class and a column for each found
    one. `iou` float64 [K] is, for each class, what is right of all that is or was said to be of it,
    NaN where neither occurs; `mean_iou` (0 … 1) is the mean of the others. `accuracy` is the share
    of pixels that are right, `class_accuracy` [K] that of each class, NaN where there is none, and
    `mean_accuracy` the mean of the others.
    """

    confusion: np.ndarray

    @property
    def pixels(self) -> int:
        """How many pixels counted."""
        return int(self.confusion.sum())

    @property
    def iou(self) -> np.ndarray:
        right = np.diag(self.confusion)
        return _share(right, self.confusion.sum(0) + self.confusion.sum(1) - right)

    @property
    def mean_iou(self) -> float:
        return _mean(self.iou)

    @property
    def accuracy(self) -> float:
        right = np.diag(self.confusion).sum(keepdims=True)
        return float(_share(right, self.confusion.sum(keepdims=True).ravel())[0])

    @property
    def class_accuracy(self) -> np.ndarray:
        return _share(np.diag(self.confusion), self.confusion.sum(1))

    @property
    def mean_accuracy(self) -> float:
        return _mean(self.class_accuracy)


class Confusion:
    """Counts pixels of `classes` classes, batch by batch, on the device of the batches."""

    def __init__(self, classes: int) -> None:
        if not 1 <= classes <= IGNORED:
            raise ValueError(f"{classes} classes; a mask has room for 1 to {IGNORED}")
        self.classes = classes
        self._counts: Tensor | None = None

    def add(self, found: Tensor, truth: Tensor) -> None:
        """Count `found` (integers below `classes`) where `truth` (uint8, same shape) is not 255.

        Raises InputError for a true label that is no class, ValueError for anything else that is
        out of range or shape.
        """
        if found.shape != truth.shape or truth.dtype != torch.uint8 or found.is_floating_point():
            raise ValueError(
                f"{found.dtype} {tuple(found.shape)} for masks of {truth.dtype} "
                f"{tuple(truth.shape)}"
            )
        if found.numel() == 0:
            return
        found = found.flatten().to(torch.int64)
        low, high = (int(value) for value in found.aminmax())
        if low < 0 or high >= self.classes:
            raise ValueError(f"labels from {low} to {high} were found among {self.classes} classes")
        # One row for each value that a byte can have: unknown labels are seen without a search.
        places = truth.flatten().to(found.device, torch.int64) * self.classes + found
        rows = torch.bincount(places, minlength=256 * self.classes).view(256, self.classes)
        strange = rows[self.classes : IGNORED].sum(1).nonzero()
        if len(strange):
            raise InputError(
                f"a mask has the label {self.classes + int(strange[0])}; labels are 0 to "
                f"{self.classes - 1}, and {IGNORED} for what does not count",
                kind="mask",
            )
        kept = rows[: self.classes]
        self._counts = kept if self._counts is None else self._counts + kept

    def result(self) -> Segmented:
        """What was found so far. Raises ValueError if no pixel counted."""
        if self._counts is None or not bool(self._counts.any()):
            raise ValueError("there is no pixel whose class is known")
        return Segmented(self._counts.cpu().numpy())


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part` / `whole`, NaN where there is nothing."""
    out: np.ndarray = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return out


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values))
