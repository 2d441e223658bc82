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


def random_precision(positives: int, n: int) -> float:
    """Average precision (0 … 1) that a random order of `n` images has on average.

    The image at rank k is one of the `positives` with probability m/n; then precision there is
    (1 + (k − 1)(m − 1)/(n − 1)) / k on average. Summed over k, divided by m: with the harmonic
    number H it is H/n + (1 − H/n)(m − 1)/(n − 1), which is more than m/n.
    Raises ValueError unless 1 ≤ `positives` ≤ `n`.
    """
    if not 1 <= positives <= n:
        raise ValueError(f"{positives} positives among {n} images have no average precision")
    first = float((1 / np.arange(1, n + 1)).sum()) / n
    return first + (1 - first) * (positives - 1) / max(1, n - 1)


def mean_interval(truths: list[np.ndarray], scores: list[np.ndarray]) -> Interval | None:
    """A 95 % interval (0 … 1) of the mean over attributes, by drawing the images again.

    `truths` are int8 [N] for each attribute, negative where it is not known; `scores` float [N].
    None where nothing can be drawn: a single image, or nothing positive.

    Samples overestimate average precision, the more so the fewer positives they have, and drawing
    a sample again does so once more. The basic bootstrap takes from the mean what the draws have
    above it, so that the interval is about the mean average precision of all images there could
    be. It is extended to both sides. Downwards by that excess once more: where positives are few
    the draws have only about half of what the sample itself has in excess. Upwards to hold the mean
    itself and what other samples of this size would give, which is what the chance of a random
    order among as many images is compared with.
    """
    n = len(truths[0])
    if n < 2:
        return None
    facts = [
        (known, truth[known] > 0, score[known])
        for truth, score in zip(truths, scores, strict=True)
        for known in (truth >= 0,)
    ]
    own = np.array([average_precision(truth, score)[0] for _, truth, score in facts])
    random = np.random.default_rng(derive(0, "average precision"))
    beyond: list[np.ndarray] = []
    rows = max(1, min(RESAMPLED, _BLOCK_BYTES // (8 * n)))
    for start in range(0, RESAMPLED, rows):
        size = min(rows, RESAMPLED - start)
        weights = random.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)
        drawn = [average_precision(truth, score, weights[:, at]) for at, truth, score in facts]
        beyond.append(mean_of_finite(np.stack(drawn) - own[:, None]))
    every = np.concatenate(beyond)
    return extended(float(own.mean()), every, n) if len(every) else None


def extended(value: float, beyond: np.ndarray, n: int) -> Interval:
    """The interval of a mean average precision `value` (0 … 1) of `n` images, as `mean_interval`
    says, where draws had `beyond` [K] it."""
    value = min(1.0, value)
    least, most = np.percentile(beyond, [2.5, 97.5])
    excess = float(beyond.mean())
    low = value - max(0.0, float(most), float(most) + excess)
    high = value + max(0.0, -float(least), float(most) - excess)
    return Interval(
        low=max(0.0, low),
        high=min(1.0, high),
        method=f"basic bootstrap over {n} images, {RESAMPLED} times, extended by its bias",
    )


def mean_of_finite(values: np.ndarray) -> np.ndarray:
    """Means over the first axis of what is finite, of the columns that hold any such."""
    finite = np.isfinite(values)
    count = finite.sum(0)
    total = np.where(finite, values, 0.0).sum(0)
    means: np.ndarray = total[count > 0] / count[count > 0]
    return means
