"""Intervals for what was measured on a sample: Wilson for shares, Student's t for means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist, fmean, stdev
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator


class Interval(BaseModel):
    """A confidence interval, in the unit of the value that it belongs to."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    low: float
    high: float
    level: float = 0.95
    method: str

    @model_validator(mode="after")
    def _ordered(self) -> Interval:
        if self.low > self.high:
            raise ValueError(f"the interval ends ({self.high:g}) before it begins ({self.low:g})")
        if not 0 < self.level < 1:
            raise ValueError(f"level {self.level:g} is not a probability between 0 and 1")
        return self

    def scaled(self, factor: float, low: float = -math.inf, high: float = math.inf) -> Interval:
        """The interval of `factor` (> 0) times the value, cut to [low, high]."""
        bounds = (min(max(bound * factor, low), high) for bound in (self.low, self.high))
        return Interval(low=next(bounds), high=next(bounds), level=self.level, method=self.method)


def wilson(hits: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval for a share of `hits` among `n` independent trials, in [0, 1].

    It stays inside [0, 1] and is honest at 0 and n hits, where the normal interval has no width.
    Raises ValueError unless 0 ≤ hits ≤ n and n ≥ 1.
    """
    if n < 1 or not 0 <= hits <= n:
        raise ValueError(f"{hits} hits among {n} trials is not a share")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share, spread = hits / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    low = 0.0 if hits == 0 else max(0.0, centre - half)
    high = 1.0 if hits == n else min(1.0, centre + half)
    return Interval(low=low, high=high, level=level, method="Wilson")


def clustered_mean(
    values: Sequence[float],
    level: float = 0.95,
    unit: Literal["videos", "images", "stretches", "recordings"] = "videos",
) -> tuple[float, Interval | None]:
    """Mean of one value per independent cluster, with Student's t interval over the clusters.

    Several clips of one video are not independent: average them first, and pass one value per
    video. A single value has no interval. Raises ValueError without values.
    """
    if not values:
        raise ValueError("a mean needs at least one value")
    mean = fmean(values)
    n = len(values)
    if n == 1:
        return mean, None
    half = t_quantile(0.5 + level / 2, n - 1) * stdev(values) / math.sqrt(n)
    interval = Interval(
        low=mean - half, high=mean + half, level=level, method=f"Student t over {n} {unit}"
    )
    return mean, interval


@lru_cache(maxsize=256)
def t_quantile(probability: float, df: float) -> float:
    """Quantile of Student's t distribution: the t with P(T ≤ t) = `probability`.

    Found by bisection on the regularised incomplete beta function: P(|T| < t) is
    I_x(1/2, df/2) at x = t² / (df + t²). Raises ValueError unless 0 < probability < 1 and df > 0.
    """
    if not 0 < probability < 1 or df <= 0:
        raise ValueError(f"no quantile {probability} of t with {df} degrees of freedom")
    if probability < 0.5:
        return -t_quantile(1 - probability, df)
    wanted = 2 * probability - 1

    def inside(t: float) -> float:
        return beta_share(0.5, df / 2, t * t / (df + t * t))

    low, high = 0.0, 1.0
    while inside(high) < wanted:
        low, high = high, 2 * high
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if inside(middle) < wanted else (low, middle)
    return high


def beta_share(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b) for a, b > 0 and 0 ≤ x ≤ 1."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    log_front = (
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    front = math.exp(log_front)
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of I_x(a, b), evaluated forwards (modified Lentz algorithm)."""
    tiny = 1e-300
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > tiny else tiny)
    value = d
    for m in range(1, 10_000):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + numerator * d
            c = 1 + numerator / c
            d = 1 / (d if abs(d) > tiny else tiny)
            c = c if abs(c) > tiny else tiny
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value
