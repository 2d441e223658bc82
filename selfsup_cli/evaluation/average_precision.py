"""Average precision of scores for attributes, and how sure its mean is."""

from __future__ import annotations

import numpy as np

from selfsup_cli.randomness import derive
from selfsup_cli.runs.statistics import Interval

RESAMPLED = 500
_BLOCK_BYTES = 64 << 20


def average_precision(
    truth: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Average precision (0 … 1) of `scores` [N] for `truth` bool [N]: Σ (Rₙ − Rₙ₋₁) Pₙ.

    Equal scores are one threshold. With `weights` [K, N] each image counts as often as one of K
    rows says: float64 [K], NaN where nothing positive counts; without, float64 [1].
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    counts = np.ones((1, len(scores))) if weights is None else weights[:, order]
    hits = np.cumsum(counts * truth[order], axis=1)[:, ends]
    seen = np.cumsum(counts, axis=1)[:, ends]
    precision = np.divide(hits, seen, out=np.zeros(hits.shape), where=seen > 0)
    with np.errstate(invalid="ignore"):
        recall = hits / hits[:, -1:]
    steps: np.ndarray = (np.diff(recall, axis=1, prepend=0.0) * precision).sum(1)
    return steps


def mean_interval(
    truths: list[np.ndarray], scores: list[np.ndarray], value: float
) -> Interval | None:
    """A 95 % interval (0 … 1) of the mean over attributes, by drawing the images again.

    `truths` are int8 [N] for each attribute, negative where it is not known; `scores` float [N];
    `value` is their mean average precision. Images drawn twice raise it a little, so the interval
    is as wide as that of the drawn means, but about `value`. None for a single image.
    """
    n = len(truths[0])
    if n < 2:
        return None
    random = np.random.default_rng(derive(0, "average precision"))
    means: list[np.ndarray] = []
    rows = max(1, min(RESAMPLED, _BLOCK_BYTES // (8 * n)))
    for start in range(0, RESAMPLED, rows):
        size = min(rows, RESAMPLED - start)
        weights = random.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)
        found = []
        for truth, score in zip(truths, scores, strict=True):
            known = truth >= 0
            found.append(average_precision(truth[known] > 0, score[known], weights[:, known]))
        with np.errstate(invalid="ignore"):
            means.append(np.nanmean(np.stack(found), axis=0))
    every = np.concatenate(means)
    every = every[np.isfinite(every)]
    low, high = value + np.percentile(every, [2.5, 97.5]) - every.mean()
    return Interval(
        low=max(0.0, min(float(low), value)),
        high=min(1.0, max(float(high), value)),
        method=f"bootstrap over {n} images, {RESAMPLED} times",
    )
