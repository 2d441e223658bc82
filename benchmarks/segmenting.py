"""Mean intersection over union of masks against torchmetrics and scikit-learn used alone."""

from __future__ import annotations

from collections.abc import Callable

import measure
import numpy as np
import torch
from sklearn.metrics import jaccard_score
from torch import Tensor
from torchmetrics import JaccardIndex

from selfsup_cli.evaluation.segment_scores import spread
from selfsup_cli.evaluation.segmentation import Confusion

CLASSES = 21
SIZE = (500, 375)
IMAGES = 20
ROUNDS = 5
LIMITS: dict[str, str] = {}


def rows() -> list[measure.Row]:
    """CPU time on one thread: speeds over those of the libraries; our intervals in seconds."""
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    truths = torch.randint(CLASSES, (IMAGES, *SIZE), generator=g).to(torch.uint8)
    truths[torch.rand(truths.shape, generator=g) < 0.05] = 255
    founds = torch.where(
        torch.rand(truths.shape, generator=g) < 0.6,
        truths.clamp(max=CLASSES - 1),
        torch.randint(CLASSES, truths.shape, generator=g).to(torch.uint8),
    )
    contenders: dict[str, Callable[[], object]] = {
        "ours": lambda: ours(founds, truths),
        "torchmetrics": lambda: by_torchmetrics(founds, truths, checked=True),
        "unchecked": lambda: by_torchmetrics(founds, truths, checked=False),
        "scikit-learn": lambda: by_sklearn(founds, truths),
    }
    spent = measure.interleaved(contenders, ROUNDS)
    each = np.stack(by_image(founds, truths))
    many = each.repeat(1449 // IMAGES + 1, axis=0)[:1449]
    varied = measure.interleaved({"intervals": lambda: spread(many)}, 2)["intervals"]
    what = f"mIoU, {IMAGES} masks of {SIZE[0]}×{SIZE[1]}, {CLASSES} classes"
    return [
        (what, "torchmetrics", spent["torchmetrics"] / spent["ours"], "≥ 1"),
        (what, "torchmetrics without checks", spent["unchecked"] / spent["ours"], "≥ 1"),
        (what, "scikit-learn", spent["scikit-learn"] / spent["ours"], "≥ 1"),
        ("intervals of 1,449 images over those of 20 masks' mIoU", "", varied / spent["ours"], ""),
    ]


def ours(founds: Tensor, truths: Tensor) -> float:
    """Image by image, as `transfer segment` counts them."""
    confusion = Confusion(CLASSES)
    for found, truth in zip(founds, truths, strict=True):
        confusion.add(found, truth)
    return confusion.result().mean_iou


def by_image(founds: Tensor, truths: Tensor) -> list[np.ndarray]:
    """Confusion matrices of single images."""
    counts = []
    for found, truth in zip(founds, truths, strict=True):
        confusion = Confusion(CLASSES)
        confusion.add(found, truth)
        counts.append(confusion.result().confusion)
    return counts


def by_torchmetrics(founds: Tensor, truths: Tensor, *, checked: bool) -> float:
    """The library's own class, updated image by image."""
    metric = JaccardIndex(
        "multiclass", num_classes=CLASSES, ignore_index=255, validate_args=checked
    )
    for found, truth in zip(founds, truths, strict=True):
        metric.update(found[None], truth[None].long())
    return float(metric.compute())


def by_sklearn(founds: Tensor, truths: Tensor) -> float:
    """Of all pixels that count at once."""
    known = truths != 255
    truth, found = truths[known].numpy(), founds[known].numpy()
    return float(jaccard_score(truth, found, average="macro"))


if __name__ == "__main__":
    measure.main(rows, LIMITS)
