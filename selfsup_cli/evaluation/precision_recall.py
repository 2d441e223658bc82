"""How good and how varied samples are: precision and recall by nearest neighbours among features.

A set of features covers the balls around each of them that reach to its k-th neighbour of the same
set. Precision is the share of samples that the real images cover, recall that of real images that
the samples cover.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def precision_recall(
    samples: Tensor, reals: Tensor, *, neighbours: int = 3, radii: Tensor | None = None
) -> PrecisionRecall:
    """Both shares for features `[n, D]` of samples and `[m, D]` of real images, where they lie.

    `radii` are those of the real images, where they have been measured before. Memory grows with
    n + m, not with their product. Raises InputError for unequal dimensions and for sets without
    `neighbours` others.
    """
    check_features(samples)
    check_features(reals, samples.shape[1])
    fewest = min(len(samples), len(reals))
    if fewest <= neighbours:
        raise InputError(
            f"{fewest} images are too few for the distance to neighbour {neighbours}",
            kind="too-few-images",
        )
    ours, theirs = samples.detach().double(), reals.detach().double()
    around_reals = reach(theirs, neighbours) if radii is None else radii
    around_samples = reach(ours, neighbours)
    precise = 0
    recalled = torch.zeros(len(reals), dtype=torch.bool, device=theirs.device)
    start = 0
    for part in _chunks(ours):
        apart = torch.cdist(part, theirs)
        precise += int((apart <= around_reals).any(1).sum())
        recalled |= (apart <= around_samples[start : start + len(part), None]).any(0)
        start += len(part)
    return PrecisionRecall(precise, len(samples), int(recalled.sum()), len(reals))


def reach(features: Tensor, neighbours: int = 3) -> Tensor:
    """Radius of the ball around each feature `[n, D]`: how far its k-th neighbour is, `[n]`."""
    features = features.detach().double()
    # A feature is its own nearest neighbour.
    found = [
        torch.cdist(part, features).kthvalue(neighbours + 1).values for part in _chunks(features)
    ]
    return torch.cat(found)


def _chunks(features: Tensor) -> Sequence[Tensor]:
    return torch.split(features, _CHUNK)
