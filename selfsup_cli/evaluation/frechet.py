"""Fréchet distance between two sets of features, from streamed means and covariances.

Measured on pool3 of the Inception network of 2015 it is FID, with any other network it is another
number: `distance_name` keeps them apart. Section 7.3 compares 10,000 images with 10,000.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Self

import torch
from torch import Tensor

from selfsup_cli.errors import InputError
from selfsup_cli.runs.statistics import Interval, t_quantile

INCEPTION = "inception-2015"
"""The name of the one network whose features make a Fréchet distance an FID."""


def distance_name(network: str) -> str:
    """ "FID" for the network of that name, "FD-<name>" for every other."""
    return "FID" if network == INCEPTION else f"FD-{network}"


@dataclass
class Moments:
    """Count, mean and covariance of features `[n, D]` that come in batches, in float64 on the CPU.

    Each batch is centred by itself and merged, so that a large mean costs no digits; how the
    features are divided into batches changes the result by rounding only.
    """

    dims: int
    count: int = 0
    mean: Tensor = field(init=False)
    scatter: Tensor = field(init=False)
    """Sum over the features of (f − mean)(f − mean)ᵀ, `[D, D]`."""
    _root: Tensor | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        self.mean = torch.zeros(self.dims, dtype=torch.float64)
        self.scatter = torch.zeros(self.dims, self.dims, dtype=torch.float64)

    @classmethod
    def of(cls, features: Tensor) -> Self:
        """Those of features `[n, D]` that lie in memory."""
        check_features(features)
        moments = cls(features.shape[1])
        moments.add(features)
        return moments

    def add(self, features: Tensor) -> None:
        """Take `[n, D]` in. Raises InputError where they are not `dims` finite numbers each."""
        check_features(features, self.dims)
        if not len(features):
            return
        new = features.detach().to("cpu", torch.float64)
        mean = new.mean(0)
        centred = new - mean
        self._merge(len(new), mean, centred.T @ centred)

    def merge(self, other: Moments) -> None:
        """Take in all that `other` has seen."""
        if other.dims != self.dims:
            raise _unequal(self.dims, other.dims)
        if other.count:
            self._merge(other.count, other.mean, other.scatter)

    def _merge(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        total = self.count + count
        apart = mean - self.mean
        share = count / total
        self.scatter += scatter
        self.scatter.addr_(apart, apart, alpha=self.count * share)
        self.mean = self.mean + share * apart
        self.count = total
        self._root = None

    @property
    def covariance(self) -> Tensor:
        """Unbiased, float64 `[D, D]`. Raises InputError for fewer than two features."""
        if self.count < 2:
            raise InputError(
                f"a covariance needs at least two images, not {self.count}", kind="too-few-images"
            )
        return self.scatter / (self.count - 1)

    @property
    def root(self) -> Tensor:
        """R with RRᵀ = covariance, float64 `[D, rank]`, kept for the next time it is asked for."""
        if self._root is None:
            values, vectors = torch.linalg.eigh(self.covariance)
            kept = values > values[-1] * self.dims * torch.finfo(torch.float64).eps
            self._root = vectors[:, kept] * values[kept].sqrt()
        return self._root

    def state(self) -> dict[str, Tensor]:
        """Tensors from which `of_state` makes the same again."""
        return {
            "count": torch.tensor(self.count),
            "mean": self.mean.clone(),
            "scatter": self.scatter.clone(),
        }

    @classmethod
    def of_state(cls, state: dict[str, Tensor]) -> Self:
        """What `state` gave. Raises InputError for tensors that no `state` gives."""
        try:
            count, mean, scatter = (state[name] for name in ("count", "mean", "scatter"))
        except KeyError as missing:
            raise InputError(f"statistics without {missing}", kind="statistics") from None
        dims = mean.numel()
        sound = (
            mean.dtype == scatter.dtype == torch.float64
            and tuple(scatter.shape) == (dims, dims)
            and bool(torch.isfinite(mean).all() and torch.isfinite(scatter).all())
        )
        if not sound:
            raise InputError("statistics that are not float64 [D] and [D, D]", kind="statistics")
        moments = cls(dims)
        moments.count, moments.mean, moments.scatter = int(count), mean.clone(), scatter.clone()
        return moments


def frechet_distance(ours: Moments, reference: Moments) -> float:
    """|μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½) ≥ 0, symmetric in the two.

    The trace of the root is the sum of the roots of the eigenvalues of Rᵀ Σ₁ R with RRᵀ = Σ₂, which
    is symmetric where Σ₁Σ₂ is not, and as large as the rank of Σ₂: fewer features than dimensions
    are no difficulty. Raises InputError for unequal dimensions.
    """
    if ours.dims != reference.dims:
        raise _unequal(ours.dims, reference.dims)
    first, second = ours.covariance, reference.covariance
    apart = ours.mean - reference.mean
    product = reference.root.T @ first @ reference.root
    crossed = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    distance = apart @ apart + first.trace() + second.trace() - 2 * crossed
    return max(0.0, float(distance))


def frechet_interval(
    groups: Sequence[Moments], reference: Moments, level: float = 0.95
) -> tuple[float, Interval | None]:
    """The distance of all `groups` together, with its interval by a delete-a-group jackknife.

    The groups are disjoint random parts of one sample, about equal in size. Resampling with
    replacement (a bootstrap) would not do: repeated images shrink the covariance and add to the
    distance what is to be estimated. The interval speaks of the sample at this size, the reference
    being given; the bias that `expected_bias` estimates is not taken off. None for one group.
    """
    whole = _together(groups)
    value = frechet_distance(whole, reference)
    n = len(groups)
    if n < 2:
        return value, None
    without = [
        frechet_distance(_together([*groups[:i], *groups[i + 1 :]]), reference) for i in range(n)
    ]
    centre = math.fsum(without) / n
    spread = math.sqrt((n - 1) / n * math.fsum((v - centre) ** 2 for v in without))
    half = t_quantile(0.5 + level / 2, n - 1) * spread
    method = f"jackknife over {n} groups"
    low = max(0.0, value - half)
    return value, Interval(low=low, high=value + half, level=level, method=method)


def expected_bias(reference: Moments, ours: int) -> float:
    """The distance that so many images from the reference's own distribution would have on average.

    A finite sample is never at distance 0. With Gaussian features of covariance Σ with eigenvalues
    λ, drawn n and m times, the mean is to first order
    (1/n + 1/m)·[5/4 Σᵢ λᵢ + ½ Σᵢⱼ λᵢλⱼ / (λᵢ + λⱼ)]; it holds for n, m well above D, below which
    the bias is larger still.
    """
    if ours < 1:
        raise ValueError(f"{ours} images")
    values = torch.linalg.eigvalsh(reference.covariance).clamp(min=0)
    pairs = values[:, None] * values[None, :] / (values[:, None] + values[None, :])
    inside = 1.25 * values.sum() + 0.5 * pairs.nan_to_num(0.0).sum()
    return (1 / ours + 1 / reference.count) * float(inside)


def too_few(count: int, dims: int) -> str | None:
    """One sentence where so many images are too few for features of `dims`, else None."""
    if count > dims:
        return None
    return (
        f"{count} images are fewer than the {dims} features: their covariance is singular and the "
        "distance far too large, compare it only with others of as many images"
    )


def check_features(features: Tensor, dims: int | None = None, *, name: str = "the network") -> None:
    """Raises InputError unless `features` are finite and `[n, D]`, of `dims` where that is said."""
    if features.ndim != 2 or features.shape[1] < 1:
        raise InputError(
            f"{name} gives features {tuple(features.shape)}, not [images, features]",
            kind="features",
        )
    if dims is not None and features.shape[1] != dims:
        raise _unequal(dims, features.shape[1])
    if not bool(torch.isfinite(features).all()):
        raise InputError(
            f"{name} gives features that are not finite: the images or the weights are unusable",
            kind="not-finite",
        )


def normal_interval(value: float, error: float, level: float, method: str) -> Interval:
    """`value` ± the normal quantile times its standard error."""
    half = NormalDist().inv_cdf(0.5 + level / 2) * error
    return Interval(low=value - half, high=value + half, level=level, method=method)


def _together(groups: Sequence[Moments]) -> Moments:
    if not groups:
        raise ValueError("no groups of features")
    whole = Moments(groups[0].dims)
    for group in groups:
        whole.merge(group)
    return whole


def _unequal(first: int, second: int) -> InputError:
    return InputError(
        f"features of {second} numbers cannot be compared with features of {first}: both sets must "
        "come from the same network",
        kind="features",
    )
