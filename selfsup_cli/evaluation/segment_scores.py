"""What is reported of segmentations: overlap and accuracy with intervals over images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from selfsup_cli.data.masked_images import MaskedImages
from selfsup_cli.evaluation.segmentation import Segmented
from selfsup_cli.randomness import derive
from selfsup_cli.runs.report import Interval, Measurement, ProtocolValue

RESAMPLES = 1000
LEVEL = 0.95

_CHUNK = 50


@dataclass(frozen=True)
class Segmentations:
    """What was found of the images of `source`.

    `confusions` int64 [N, K, K] count the pixels of each image, a row for each true class and a
    column for each found one; `masks` are what was found, as PNG files, or nothing where they were
    not asked for.
    """

    source: MaskedImages
    confusions: np.ndarray
    masks: Sequence[bytes] = ()

    @property
    def ids(self) -> Sequence[str]:
        """The images."""
        return self.source.ids

    @property
    def classes(self) -> tuple[str, ...]:
        """Their classes."""
        return self.source.classes or ()

    @property
    def together(self) -> Segmented:
        """The pixels of all images."""
        return Segmented(self.confusions.sum(0))

    def each(self) -> Iterator[Segmented]:
        """The pixels of each image."""
        return (Segmented(one) for one in self.confusions)


@dataclass(frozen=True)
class Spread:
    """The same of `RESAMPLES` samples of the images, drawn with replacement: float64 [R], or
    [R, K] of each class."""

    mean_iou: np.ndarray
    accuracy: np.ndarray
    mean_accuracy: np.ndarray
    iou: np.ndarray


def spread(confusions: np.ndarray, resamples: int = RESAMPLES) -> Spread | None:
    """How much the scores of images [N, K, K] vary with which images there are; None of a single
    one."""
    n, k = confusions.shape[:2]
    if n < 2:
        return None
    rng = np.random.default_rng(derive(0, "bootstrap", n, resamples))
    flat = confusions.reshape(n, k * k).astype(np.float64)
    found: list[tuple[np.ndarray, ...]] = []
    for begin in range(0, resamples, _CHUNK):
        often = rng.multinomial(n, np.full(n, 1 / n), size=min(_CHUNK, resamples - begin))
        counts = (often @ flat).reshape(-1, k, k)
        right = np.diagonal(counts, axis1=1, axis2=2)
        true, said = counts.sum(2), counts.sum(1)
        iou = _shares(right, true + said - right)
        found.append(
            (
                _means(iou),
                _shares(right.sum(1), true.sum(1)),
                _means(_shares(right, true)),
                iou,
            )
        )
    return Spread(*(np.concatenate(values) for values in zip(*found, strict=True)))


def interval(value: float, samples: np.ndarray) -> Interval | None:
    """The middle 95 % of `samples`, and `value`, in its unit; None where there are none."""
    samples = samples[np.isfinite(samples)]
    if not len(samples):
        return None
    low, high = np.quantile(samples, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return Interval(
        low=min(float(low), value),
        high=max(float(high), value),
        level=LEVEL,
        method=f"bootstrap, {RESAMPLES} samples of the images",
    )


def measured(
    found: Segmentations,
    about: Mapping[str, Any],
    protocol: dict[str, ProtocolValue],
    trained: Sequence[bool],
) -> list[Measurement]:
    """Mean overlap, accuracies, and the overlap of each class, in %.

    `trained` says which classes were seen in training. A class that is in no test mask, and was
    found nowhere, is not among them; one that was found counts as 0 in the mean. Either is named in
    the protocol, as is a class that was never seen in training.
    """
    all_, varied = found.together, spread(found.confusions)
    true = all_.confusion.sum(1)
    absent = [name for name, count in zip(found.classes, true, strict=True) if not count]
    unseen = [name for name, has in zip(found.classes, trained, strict=True) if not has]
    phantom = [
        name
        for name, count, iou in zip(found.classes, true, all_.iou, strict=True)
        if not count and not np.isnan(iou)
    ]
    protocol = {
        **protocol,
        "pixels": all_.pixels,
        "classes": int((~np.isnan(all_.iou)).sum()),
        **({"not_in_test": [*absent]} if absent else {}),
        **({"found_though_not_in_test": [*phantom]} if phantom else {}),
        **({"never_trained": [*unseen]} if unseen else {}),
    }
    most = int(true.argmax())
    constant = {
        "mean_iou": float(true[most]) / float(true.sum()) / int((true > 0).sum()),
        "accuracy": float(true[most]) / float(true.sum()),
        "mean_accuracy": 1 / int((true > 0).sum()),
    }
    told = f"every pixel called {found.classes[most]}"
    rows = []
    for name, metric in (
        ("mean_iou", "mean intersection over union"),
        ("accuracy", "pixel accuracy"),
        ("mean_accuracy", "mean class accuracy"),
    ):
        value = float(getattr(all_, name))
        samples = np.array([]) if varied is None else getattr(varied, name)
        rows.append(
            _row(
                "mIoU" if name == "mean_iou" else metric,
                metric,
                value,
                samples,
                len(found.ids),
                about,
                protocol,
                chance=100 * constant[name],
                chance_is=told,
            )
        )
    images = (found.confusions.sum(2) > 0).sum(0)
    for place, name in enumerate(found.classes):
        if np.isnan(all_.iou[place]):
            continue
        own: dict[str, ProtocolValue] = {
            **protocol,
            "share_of_pixels": f"{100 * true[place] / true.sum():.2f} %",
            **({"class_accuracy": _percent(all_.class_accuracy[place])} if true[place] else {}),
        }
        samples = np.array([]) if varied is None else varied.iou[:, place]
        n = max(1, int(images[place]))
        metric = "intersection over union"
        rows.append(_row(f"IoU {name}", metric, float(all_.iou[place]), samples, n, about, own))
    return rows


def _row(
    name: str,
    metric: str,
    share: float,
    samples: np.ndarray,
    n: int,
    about: Mapping[str, Any],
    protocol: dict[str, ProtocolValue],
    **chance: Any,
) -> Measurement:
    spread_ = interval(share, samples)
    return Measurement(
        **about,
        name=name,
        metric=metric,
        unit="%",
        value=100 * share,
        interval=None if spread_ is None else spread_.scaled(100, 0, 100),
        n=n,
        protocol=protocol,
        **chance,
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _shares(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    out: np.ndarray = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return out


def _means(values: np.ndarray) -> np.ndarray:
    """Means of the rows over what is no NaN; NaN where there is nothing else."""
    known = ~np.isnan(values)
    return _shares(np.where(known, values, 0).sum(1), known.sum(1))
