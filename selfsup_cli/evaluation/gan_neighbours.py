"""Were training images learned by heart? How near samples come to them, beside held-out images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from selfsup_cli.evaluation.gan_pixels import Reals
from selfsup_cli.evaluation.judges import Judge, exact, see

_CHUNK = 1024
NEAR = 0.01
"""Nearer to a training image than this share of held-out images is what is counted."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Near:
    """The nearest training images of each query, nearest first: `distances` `[Q, k]` and `places`
    int64 `[Q, k]` in the source."""

    distances: Tensor
    places: Tensor


@dataclass(frozen=True)
class Copies:
    """Distances to the nearest training image: of samples, and of images that were held out.

    `unit` says in what. `limit` is the distance under which `NEAR` of the held-out images lie.
    """

    samples: Tensor
    heldout: Tensor
    unit: str

    @property
    def limit(self) -> float:
        """The distance under which only the nearest `NEAR` of the held-out images lie."""
        return float(torch.quantile(self.heldout.double(), NEAR))

    @property
    def nearer(self) -> int:
        """How many samples are nearer to a training image than that."""
        return int((self.samples < self.limit).sum())

    def told(self) -> str:
        """All of it in a sentence."""
        ours, theirs = (float(side.median()) for side in (self.samples, self.heldout))
        many = "1 sample is" if self.nearer == 1 else f"{self.nearer} samples are"
        return (
            f"the nearest training image is {ours:.3g} away (median of {len(self.samples)} "
            f"samples; {theirs:.3g} for {len(self.heldout)} images that were held out), in "
            f"{self.unit}; {many} nearer than {self.limit:.3g}, as the nearest "
            f"{NEAR:.0%} of the held-out images are"
        )


def by_pixels(queries: Tensor, reals: Reals, k: int, progress: Progress) -> Near:
    """Root of the mean squared difference, in grey levels (0 … 255), of uint8 `[Q, 3, S, S]`."""
    flat = queries.flatten(1).float()
    numbers = flat.shape[1]
    best = Near(torch.full((len(flat), 0), 0.0), torch.zeros(len(flat), 0, dtype=torch.int64))
    start = 0
    for images in reals.read([(0, len(reals))], _CHUNK):
        apart = torch.cdist(flat, images.flatten(1).float()) / numbers**0.5
        best = _merged(best, apart, start, k)
        start += len(images)
        progress(start, len(reals))
    return best


def by_features(queries: Tensor, reals: Reals, k: int, judge: Judge, progress: Progress) -> Near:
    """One minus the cosine between the embeddings of uint8 `[Q, 3, S, S]` and of real images.

    Those of the real images are kept in the cache.
    """
    with exact():  # the cache is that of `selfsup score`
        seen = see(judge, reals, progress=progress)
        found = [judge.look(part)["features"].cpu() for part in torch.split(queries, 100)]
    ours = torch.nn.functional.normalize(torch.cat(found), dim=1)
    best = Near(torch.full((len(ours), 0), 0.0), torch.zeros(len(ours), 0, dtype=torch.int64))
    for start in range(0, len(seen.features), _CHUNK):
        theirs = torch.nn.functional.normalize(seen.features[start : start + _CHUNK], dim=1)
        best = _merged(best, (1 - ours @ theirs.T).clamp(min=0), start, k)
    return best


def _merged(best: Near, apart: Tensor, start: int, k: int) -> Near:
    places = torch.arange(start, start + apart.shape[1]).expand(len(apart), -1)
    distances = torch.cat([best.distances, apart], 1)
    places = torch.cat([best.places, places], 1)
    found = distances.topk(min(k, distances.shape[1]), largest=False)
    return Near(found.values, places.gather(1, found.indices))
