"""The Inception Score of images, from the class probabilities that a network gives them.

The name belongs to the Inception network of 2015; of another classifier it is another number, which
`score_name` says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, pstdev

import torch
from torch import Tensor

from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.frechet import INCEPTION, normal_interval
from selfsup_cli.randomness import generator
from selfsup_cli.runs.statistics import Interval

_REPLICATES = 64


@dataclass(frozen=True)
class InceptionScore:
    """Mean over the splits, and their standard deviation (of the population; 0 for one split)."""

    mean: float
    deviation: float
    splits: int
    images: int
    interval: Interval | None


def score_name(network: str) -> str:
    """ "IS" for the Inception network of 2015, "IS-<name>" for every other classifier."""
    return "IS" if network == INCEPTION else f"IS-{network}"


def inception_score(
    probabilities: Tensor,
    *,
    splits: int = 1,
    resamples: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> InceptionScore:
    """exp of the mean over the images of KL(p(y|x) ‖ p(y)), p(y) being the mean of p(y|x).

    `probabilities` is `[N, C]`, rows that add up to 1. They are divided in order into `splits`
    parts of nearly equal size, each with a p(y) of its own; the thesis has one, others ten. The
    score is between 1 and C. The interval is the bootstrap's standard error over images times the
    normal quantile (None for `resamples` 0); it is that of the mean over the splits.
    Raises InputError for rows that are no probabilities, and for fewer images than splits.
    """
    _check(probabilities, splits)
    p = probabilities.detach().to("cpu", torch.float64)
    certainty = torch.special.xlogy(p, p).sum(1)
    n = len(p)
    parts = [slice(i * n // splits, (i + 1) * n // splits) for i in range(splits)]
    scores: list[float] = []
    variance = 0.0
    for i, part in enumerate(parts):
        size = part.stop - part.start
        scores.append(float(_scores(torch.ones(1, size), p[part], certainty[part])))
        if resamples > 1:
            chunks = torch.split(_resampled(size, resamples, seed, i), _REPLICATES)
            found = torch.cat([_scores(chunk, p[part], certainty[part]) for chunk in chunks])
            variance += float(found.var()) / splits**2
    mean = fmean(scores)
    interval = None
    if resamples > 1 and n > 1:
        method = f"bootstrap standard error, {resamples} resamples of the images"
        interval = normal_interval(mean, math.sqrt(variance), level, method)
    return InceptionScore(mean, pstdev(scores), splits, n, interval)


def _scores(counts: Tensor, p: Tensor, certainty: Tensor) -> Tensor:
    """`[R]`: the score where each image counts as often as each row of `counts` `[R, N]` says."""
    weights: Tensor = counts.to(torch.float64) / p.shape[0]
    marginal = weights @ p
    scores: Tensor = (weights @ certainty - torch.special.xlogy(marginal, marginal).sum(1)).exp()
    return scores


def _resampled(n: int, resamples: int, seed: int, part: int) -> Tensor:
    """`[resamples, n]`: how often each of n images is drawn, with replacement."""
    g = generator(seed, part, "inception score bootstrap")
    drawn = torch.randint(n, (resamples, n), generator=g)
    return torch.zeros(resamples, n).scatter_add_(1, drawn, torch.ones(resamples, n))


def _check(probabilities: Tensor, splits: int) -> None:
    if probabilities.ndim != 2 or probabilities.shape[1] < 2:
        raise InputError(
            f"class probabilities must be [images, classes], not {tuple(probabilities.shape)}",
            kind="probabilities",
        )
    if splits < 1 or len(probabilities) < splits:
        raise InputError(
            f"{len(probabilities)} images cannot be divided into {splits} parts",
            kind="too-few-images",
        )
    sums = probabilities.double().sum(1)
    # NaN fails both comparisons.
    sound = bool((probabilities >= 0).all() and ((sums - 1).abs() < 1e-3).all())
    if not sound:
        raise InputError(
            "class probabilities must be at least 0 and add up to 1 for each image: were logits "
            "given?",
            kind="probabilities",
        )
