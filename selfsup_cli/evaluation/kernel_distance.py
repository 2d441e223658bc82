"""Kernel Inception Distance: the unbiased squared MMD between features, with a cubic kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, pstdev, stdev

import torch
from torch import Tensor

from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.frechet import INCEPTION, check_features
from selfsup_cli.randomness import generator
from selfsup_cli.runs.statistics import Interval, t_quantile


@dataclass(frozen=True)
class KernelDistance:
    """Mean over random subsets, and their standard deviation (of the population).

    `interval` is for the mean; None where there are not two disjoint subsets.
    """

    mean: float
    deviation: float
    subsets: int
    subset_size: int
    interval: Interval | None


def kernel_name(network: str) -> str:
    """ "KID" for the Inception network of 2015, "KD-<name>" for every other."""
    return "KID" if network == INCEPTION else f"KD-{network}"


def squared_mmd(ours: Tensor, reference: Tensor) -> float:
    """Unbiased estimate of MMD² between `[n, D]` and `[m, D]`; below 0 by chance where it is 0.

    k(x, y) = (x·y / D + 1)³, pairs of a feature with itself left out; in float64, where they lie.
    Raises InputError for unequal dimensions and for fewer than two features on a side.
    """
    _check(ours, reference, 2)
    x, y = (features.detach().double() for features in (ours, reference))
    within = [_off_diagonal_mean(_kernel(a, a)) for a in (x, y)]
    return sum(within) - 2 * float(_kernel(x, y).mean())


def kernel_distance(
    ours: Tensor,
    reference: Tensor,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> KernelDistance:
    """`squared_mmd` of `subsets` random pairs of subsets, each drawn without replacement.

    The subsets overlap, so that their spread says nothing of the mean's; the interval is Student's
    t over the disjoint ones that there are. Raises InputError for fewer images than a subset has.
    """
    _check(ours, reference, subset_size)
    if subset_size < 2 or subsets < 1:
        raise ValueError(f"{subsets} subsets of {subset_size}")
    values: list[float] = []
    for i in range(subsets):
        g = generator(seed, i, "kernel distance subsets")
        x, y = (side[_drawn(len(side), g)[:subset_size]] for side in (ours, reference))
        values.append(squared_mmd(x, y))
    blocks = min(len(ours), len(reference)) // subset_size
    interval = None
    mean = fmean(values)
    if blocks > 1:
        g = generator(seed, "kernel distance blocks")
        orders = [_drawn(len(side), g) for side in (ours, reference)]
        found = [
            squared_mmd(ours[a], reference[b])
            for a, b in zip(*(torch.split(o, subset_size)[:blocks] for o in orders), strict=True)
        ]
        half = t_quantile(0.5 + level / 2, blocks - 1) * stdev(found) / math.sqrt(blocks)
        method = f"Student t over {blocks} disjoint subsets"
        interval = Interval(low=mean - half, high=mean + half, level=level, method=method)
    return KernelDistance(mean, pstdev(values), subsets, subset_size, interval)


def _drawn(n: int, g: torch.Generator) -> Tensor:
    return torch.randperm(n, generator=g)


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _off_diagonal_mean(kernel: Tensor) -> float:
    n = len(kernel)
    return float(kernel.sum() - kernel.trace()) / (n * (n - 1))


def _check(ours: Tensor, reference: Tensor, least: int) -> None:
    check_features(ours)
    check_features(reference, ours.shape[1])
    fewest = min(len(ours), len(reference))
    if fewest < least:
        raise InputError(
            f"{fewest} images are fewer than the {least} that a kernel distance takes at a time",
            kind="too-few-images",
        )
