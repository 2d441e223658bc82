"""How good and how varied samples are: precision and recall by nearest neighbours among features.

A set of features covers the balls around each of them that reach to its k-th neighbour of the same
set. Precision is the share of samples that the real images cover, recall that of real images that
the samples cover.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.frechet import check_features

_CHUNK = 2048


@dataclass(frozen=True)
class PrecisionRecall:
    """Hits and numbers of images; shares in [0, 1]."""

    precise: int
    samples: int
    recalled: int
    reals: int

    @property
    def precision(self) -> float:
        """Share of the samples that look like real images."""
        return self.precise / self.samples

    @property
    def recall(self) -> float:
        """Share of the real images that the samples come near to."""
        return self.recalled / self.reals


def precision_recall(samples: Tensor, reals: Tensor, *, neighbours: int = 3) -> PrecisionRecall:
    """Both shares for features `[n, D]` of samples and `[m, D]` of real images.

    Memory grows with n + m, not with their product. Raises InputError for unequal dimensions and
    for sets without `neighbours` others.
    """
    check_features(samples)
    check_features(reals, samples.shape[1])
    fewest = min(len(samples), len(reals))
    if fewest <= neighbours:
        raise InputError(
            f"{fewest} images are too few for the distance to neighbour {neighbours}",
            kind="too-few-images",
        )
    return PrecisionRecall(
        _covered(samples, reals, neighbours), len(samples),
        _covered(reals, samples, neighbours), len(reals),
    )  # fmt: skip


def _covered(points: Tensor, by: Tensor, neighbours: int) -> int:
    """How many of `points` lie in a ball of `by`."""
    points, by = (f.detach().to("cpu", torch.float64) for f in (points, by))
    # A feature is its own nearest neighbour.
    radii = torch.cat([
        torch.cdist(chunk, by).kthvalue(neighbours + 1).values for chunk in torch.split(by, _CHUNK)
    ])  # fmt: skip
    hits = [(torch.cdist(chunk, by) <= radii).any(1).sum() for chunk in torch.split(points, _CHUNK)]
    return int(torch.stack(hits).sum())
