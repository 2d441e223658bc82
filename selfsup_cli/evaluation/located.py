"""How well it is found where images were damaged (thesis, section 3.3.3).

An image is cells, of each of which it is known whether it was damaged, and said how likely that is.
Cells of one image are not independent: intervals are over images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from selfsup_cli.evaluation.average_precision import (
    RESAMPLED,
    average_precision,
    extended,
    random_precision,
)
from selfsup_cli.randomness import derive
from selfsup_cli.runs.report import Measurement, ProtocolValue
from selfsup_cli.runs.statistics import Interval

_BLOCK_BYTES = 64 << 20


@dataclass(frozen=True)
class Located:
    """`scores` float64 [N, C], 0 … 1: how likely each cell of N images is damaged; `damaged` bool
    [N, C]: whether it is."""

    scores: np.ndarray
    damaged: np.ndarray

    @property
    def precision(self) -> float:
        """Average precision over all cells (0 … 1)."""
        return float(average_precision(self.damaged.ravel(), self.scores.ravel())[0])

    def overlap(self, threshold: float) -> float:
        """Intersection over union (0 … 1) of the damaged cells and those at `threshold` or above;
        1 where there are neither."""
        both, either = self._areas(threshold)
        return _ratio(both.sum(), either.sum())

    @property
    def threshold(self) -> float:
        """The score from which on cells have to count as damaged for the largest overlap."""
        order = np.argsort(-self.scores.ravel(), kind="stable")
        scores, hits = self.scores.ravel()[order], np.cumsum(self.damaged.ravel()[order])
        ends = np.flatnonzero(np.append(np.diff(scores) != 0, True))
        union = hits[-1] + (ends + 1) - hits[ends]
        return float(scores[ends[np.argmax(hits[ends] / union)]])

    @property
    def crossed(self) -> np.ndarray:
        """Intersection and union [N, 2] of each image at the threshold that is best in the other
        half of the images (those with even and with odd numbers)."""
        areas = np.zeros((len(self.scores), 2))
        for part in (0, 1):
            others = Located(self.scores[1 - part :: 2], self.damaged[1 - part :: 2])
            own = Located(self.scores[part::2], self.damaged[part::2])
            areas[part::2] = np.stack(own._areas(others.threshold), 1)
        return areas

    def _areas(self, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """Intersection and union [N] of each image."""
        found = self.scores >= threshold
        return (found & self.damaged).sum(1), (found | self.damaged).sum(1)

    # Intervals

    def precision_interval(self) -> Interval | None:
        """That of `precision`, by drawing the images again."""
        n, cells = self.scores.shape

        def beyond(weights: np.ndarray) -> np.ndarray:
            each = np.repeat(weights, cells, axis=1)
            drawn = average_precision(self.damaged.ravel(), self.scores.ravel(), each)
            return np.asarray(drawn - self.precision)

        found = _resampled(beyond, n, max(1, _BLOCK_BYTES // (8 * n * cells)))
        return None if found is None else extended(self.precision, found, n)


def overlap_interval(areas: np.ndarray) -> Interval | None:
    """That of an intersection over union of `areas` [N, 2], by drawing the images again."""
    n, value = len(areas), _ratio(*areas.sum(0))

    def drawn(weights: np.ndarray) -> np.ndarray:
        sums = weights @ areas
        out = np.ones(len(sums))
        np.divide(sums[:, 0], sums[:, 1], out=out, where=sums[:, 1] > 0)
        return out

    found = _resampled(drawn, n, RESAMPLED)
    if found is None:
        return None
    low, high = np.percentile(found, [2.5, 97.5])
    return Interval(
        low=min(float(low), value),
        high=max(float(high), value),
        method=f"bootstrap over {n} images, {RESAMPLED} times",
    )


def _resampled(of: Callable[[np.ndarray], np.ndarray], n: int, rows: int) -> np.ndarray | None:
    """What `of` gives for how often each of n images is drawn [K, n]; None of a single image."""
    if n < 2:
        return None
    random = np.random.default_rng(derive(0, "located"))
    found = []
    for start in range(0, RESAMPLED, rows):
        size = min(rows, RESAMPLED - start)
        found.append(of(random.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)))
    values = np.concatenate(found)
    finite: np.ndarray = values[np.isfinite(values)]
    return finite


def _ratio(both: float, either: float) -> float:
    return float(both / either) if either else 1.0


def measurements(
    found: Located,
    *,
    name: str,
    subject: str,
    dataset: str,
    split: str,
    protocol: dict[str, ProtocolValue],
) -> list[Measurement]:
    """Average precision, and overlap at 0.5 and at the threshold that is best in other images.

    Chance is what scores at random get, and for an overlap what calling every cell damaged gets.
    Raises ValueError unless there are damaged cells, and others.
    """
    n, cells = found.scores.shape
    damaged = int(found.damaged.sum())
    about = {
        "task": "sample-artifacts",
        "name": name,
        "subject": subject,
        "dataset": dataset,
        "split": split,
        "unit": "%",
        "n": n,
        "protocol": {**protocol, "cells_of_an_image": cells},
    }
    share = 100 * damaged / (n * cells)
    everywhere = {"chance": share, "chance_is": "what calling every cell damaged gets"}
    fixed = np.stack(found._areas(0.5), 1)
    rows = [
        (
            "average precision of damaged cells",
            found.precision,
            found.precision_interval(),
            {
                "chance": 100 * random_precision(damaged, n * cells),
                "chance_is": "what scores at random get",
            },
        ),
        ("IoU of damaged cells, threshold 0.5", found.overlap(0.5), overlap_interval(fixed),
         everywhere),
    ]  # fmt: skip
    if n > 1:
        crossed = found.crossed
        rows.append(
            (
                "IoU of damaged cells, threshold from the other half of the images",
                _ratio(*crossed.sum(0)),
                overlap_interval(crossed),
                everywhere,
            )
        )
    return [
        Measurement.model_validate(
            {
                **about,
                **chance,
                "metric": metric,
                "value": 100 * value,
                "interval": None if interval is None else interval.scaled(100, 0, 100),
            }
        )
        for metric, value, interval, chance in rows
    ]
